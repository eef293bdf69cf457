"""The search for the quality of an encoder that reaches a target of VMAF in as few bits as that takes.

It measures a sample of a segment's frames at a few qualities. Each decision depends on the frames, the codec and the
target alone, so that every worker chooses the same for a segment.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Self

from app.platform.media.codecs import VmafTarget
from app.platform.media.containers import VideoCodec
from worker.video.plan import SegmentPlan

# Each run is long enough for the encoder to predict from frame to frame as it does in the whole segment: with shorter
# ones the segments come out better than the sample, and larger than they need to be.
RUN_FRAMES = 24
MOST_FRAMES = 48
# Of frames of 4K fewer are measured: one run.
MOST_PIXELS = 200_000_000
# Then the interval is halved, which ends for sure.
MOST_INTERPOLATED = 4
# In steps of the scale, from the first measurement to beyond the target.
LEAST_JUMP, JUMP_PER_VMAF = 3, 2


@dataclass(frozen=True, kw_only=True)
class CrfScale:
    """The CRFs that are tried: `best` is the lowest, `worst` the highest, in steps of `step`. `usual` is where most
    pictures have a VMAF of 95."""

    best: float
    worst: float
    usual: float
    step: float = 1.0

    def crf(self, index: int) -> float:
        """The CRF of that index, 0 for the best."""
        return self.best + index * self.step

    def index(self, crf: float) -> int:
        return round((crf - self.best) / self.step)


# Below the best ones the encoders spend bits on what an eye cannot see and VMAF does not count.
SCALES: dict[VideoCodec, CrfScale] = {
    "h264": CrfScale(best=8, worst=45, usual=22, step=0.5),
    "hevc": CrfScale(best=8, worst=45, usual=23, step=0.5),
    "av1": CrfScale(best=8, worst=60, usual=30),
    "vp9": CrfScale(best=4, worst=60, usual=30),
}


@dataclass(frozen=True, kw_only=True)
class FoundQuality:
    """The CRF that was chosen, and the mean VMAF of the sample with it."""

    crf: float
    vmaf: float


@dataclass(frozen=True, kw_only=True)
class EncodedQuality:
    """What the segments of a render were encoded with: the least and the mean (by frames) of their VMAF, the least and
    the highest CRF. `missed`: how many of the `segments` have less than the target. `model`: of libvmaf."""

    target: float
    least_vmaf: float
    mean_vmaf: float
    least_crf: float
    most_crf: float
    model: str
    missed: int
    segments: int

    @classmethod
    def of(cls, target: VmafTarget, parts: Sequence[tuple[int, FoundQuality]], *, model: str) -> Self:
        """`parts`: the number of frames of each segment, and what was found for it."""
        return cls(
            target=target.vmaf,
            least_vmaf=min(found.vmaf for _, found in parts),
            mean_vmaf=sum(frames * found.vmaf for frames, found in parts)
            / sum(frames for frames, _ in parts),
            least_crf=min(found.crf for _, found in parts),
            most_crf=max(found.crf for _, found in parts),
            model=model,
            missed=sum(found.vmaf < target.vmaf for _, found in parts),
            segments=len(parts),
        )

    def as_json(self) -> dict[str, Any]:
        """As the API shows it."""
        return {
            "target": self.target,
            "vmaf": {"min": _below(self.least_vmaf), "mean": _below(self.mean_vmaf)},
            "crf": {"min": self.least_crf, "max": self.most_crf},
            "model": self.model,
        }

    def formatted(self) -> list[tuple[str, str]]:
        """Name and formatted value of each figure."""
        crf = f"{self.least_crf:g}"
        if self.most_crf > self.least_crf:
            crf += f" to {self.most_crf:g}"
        vmaf = f"{_below(self.mean_vmaf):.3f}, {_below(self.least_vmaf):.3f} in the least segment"
        return [("encoded at CRF", crf), ("VMAF of samples", vmaf)]

    @property
    def warning(self) -> str | None:
        """A sentence if the target was not reached."""
        if not self.missed:
            return None
        where = f" in {self.missed} of {self.segments} parts of the video" if self.segments > 1 else ""
        return (
            f"A VMAF of {self.target:g} was not reached{where} at the best quality of the encoder; the least is "
            f"{_below(self.least_vmaf):.3f}."
        )


def _below(vmaf: float) -> float:
    """Rounded so that no figure below a target looks as if it reached it."""
    return math.floor(vmaf * 1000) / 1000


def sampled_frames(count: int, *, frame_pixels: int) -> list[int]:
    """Which of a segment's `count` output frames are measured: all, or whole runs, each in the middle of its part."""
    most = max(RUN_FRAMES, min(MOST_FRAMES, MOST_PIXELS // frame_pixels))
    if count <= most:
        return list(range(count))
    runs = most // RUN_FRAMES
    starts = ((2 * run + 1) * count // (2 * runs) - RUN_FRAMES // 2 for run in range(runs))
    return [start + offset for start in starts for offset in range(RUN_FRAMES)]


def sampled_durations(segment: SegmentPlan, sample: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """The sample's frames as runs of equal duration, for an encoder that spends its bits by durations."""
    durations = [ticks for count, ticks in segment.runs for _ in range(count)]
    return tuple((len(list(run)), ticks) for ticks, run in groupby(durations[index] for index in sample))


def find_crf(scale: CrfScale, target: float, measure: Callable[[float], float]) -> tuple[float, float]:
    """The highest CRF whose VMAF, by `measure`, is at least `target`, and that VMAF; the best CRF if none has it.

    VMAF falls as the CRF rises, as far as the search asks: it interpolates between the nearest measured CRFs on both
    sides, and ends at neighbours of which one reaches the target and the other does not.
    """
    scores: dict[int, float] = {}
    # The highest index that reaches the target, and the lowest that does not; at first outside the scale.
    reaches, misses = -1, scale.index(scale.worst) + 1
    guess = scale.index(scale.usual)
    while misses - reaches > 1:
        guess = min(max(guess, reaches + 1), misses - 1)
        scores[guess] = measure(scale.crf(guess))
        if scores[guess] >= target:
            reaches = guess
        else:
            misses = guess
        guess = _next_guess(scores, reaches, misses, target)
    chosen = max(reaches, 0)
    return scale.crf(chosen), scores[chosen]


def _next_guess(scores: dict[int, float], reaches: int, misses: int, target: float) -> int:
    middle = (reaches + misses) // 2
    if len(scores) > MOST_INTERPOLATED:
        return middle
    if reaches not in scores:
        return max(middle, misses - max(LEAST_JUMP, round(JUMP_PER_VMAF * (target - scores[misses]))))
    if misses not in scores:
        return min(middle, reaches + max(LEAST_JUMP, round(JUMP_PER_VMAF * (scores[reaches] - target))))
    fall = scores[reaches] - scores[misses]
    return reaches + round((misses - reaches) * (scores[reaches] - target) / fall)
