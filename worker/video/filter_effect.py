"""What `stabilise` changed: the pictures before the filter compared with those after it, on a sample of frames.

Only the worker that upscales a segment has the pictures before the filter. So it measures pairs of consecutive frames,
and the finish puts the figures of all segments together. Which pairs these are follows from the times of the frames in
the whole video alone, and a segment has the frames around it that its pairs need: the figures are the same however the
video was cut.
"""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from fractions import Fraction
from itertools import accumulate
from math import ceil, fsum
from typing import Any, NamedTuple, Self

import cv2
import numpy as np

from worker.inference.aligned_frames import AveragedLuma
from worker.inference.frames import Frame
from worker.video.luma import luma
from worker.video.plan import RenderPlan, SegmentPlan
from worker.video.similarity_metrics import Plane, decibels, mean_square
from worker.video.warping_error import MOST_LARGE_PIXELS, formatted_error, past_motion, shown_error
from worker.video.watchdog import PipelineQueue, Watchdog

# Of the video, in seconds: the frames on show at these times are compared with those before them. Often in the
# beginning, so that a short video has figures, then about one frame in a hundred, which bounds the cost.
FIRST_TIME, EARLY_STEP, EARLY_TIMES = Fraction(1, 8), Fraction(1, 2), 8
LATER_TIME, LATER_STEP = Fraction(6), Fraction(4)
# Frames that wait to be measured, each with two lumas of MOST_LARGE_PIXELS at most.
MOST_WAITING = 2


# Stored in this order.
@dataclass(frozen=True)
class FilteredPair:
    """Two consecutive frames before the filter and after it.

    `error_before`, `error_after`: warping errors, None without known motion; of the second frame, `sharpness_before`
    and `sharpness_after`: the mean absolute Laplacians, in codes, and `distance`: the mean squared difference of both,
    in squared codes.
    """

    error_before: float | None
    error_after: float | None
    sharpness_before: float
    sharpness_after: float
    distance: float

    def to_json(self) -> list[float | None]:
        return list(astuple(self))

    @classmethod
    def from_json(cls, figures: Sequence[Any]) -> Self:
        return cls(*figures)


@dataclass(frozen=True, kw_only=True)
class FilterEffect:
    """What the filter did to the pictures of a render: see docs/quality.md.

    `errors`: the warping errors before and after it, None where no motion is known. `sharpness_lost`: a share, below 0
    if pictures became sharper; None for pictures without any detail. `psnr_db`: from the unfiltered pictures.
    """

    errors: tuple[float, float] | None
    sharpness_lost: float | None
    psnr_db: float
    pairs: int

    @classmethod
    def of(cls, pairs: Sequence[FilteredPair]) -> Self | None:
        """None without pairs. Sums are exact, so that the order of the pairs does not matter."""
        if not pairs:
            return None
        before = [pair.error_before for pair in pairs if pair.error_before is not None]
        after = [pair.error_after for pair in pairs if pair.error_after is not None]
        sharpness = fsum(pair.sharpness_before for pair in pairs)
        return cls(
            errors=(fsum(before) / len(before), fsum(after) / len(after)) if before and after else None,
            sharpness_lost=1 - fsum(pair.sharpness_after for pair in pairs) / sharpness
            if sharpness
            else None,
            psnr_db=decibels(fsum(pair.distance for pair in pairs) / len(pairs)),
            pairs=len(pairs),
        )

    def as_json(self) -> dict[str, Any]:
        """As the API shows it, without figures that are None."""
        figures: dict[str, Any] = {}
        if self.errors is not None:
            before, after = self.errors
            figures = {"warpingErrorBefore": shown_error(before), "warpingErrorAfter": shown_error(after)}
        if self.sharpness_lost is not None:
            figures["sharpnessLost"] = round(self.sharpness_lost, 4)
        return {**figures, "psnrToUnfiltered": round(self.psnr_db, 3), "pairs": self.pairs}

    def formatted(self) -> list[tuple[str, str]]:
        """Name and formatted value of each figure."""
        words = []
        if self.errors is not None:
            before, after = map(formatted_error, self.errors)
            words.append(("stabilise: warping error", f"{after} (before {before})"))
        if self.sharpness_lost is not None:
            words.append(("stabilise: sharpness lost", f"{100 * self.sharpness_lost:.1f} %"))
        return [*words, ("stabilise: PSNR to the unfiltered", f"{self.psnr_db:.2f} dB")]


def measured_positions(render: RenderPlan, segment: SegmentPlan) -> list[int]:
    """Which of the segment's network frames are the second of a measured pair, by their position among all of them,
    those around the segment included."""
    shown = _shown_counts(segment)
    ticks = [segment.start_tick + tick for tick in (*segment.output_ticks(), segment.duration_ticks)]
    starts = [ticks[frames] for frames in accumulate(shown, initial=0)]
    passed = [_times_before(Fraction(tick, render.timescale)) for tick in starts]
    return [
        segment.leading + at
        for at in range(len(shown))
        # The video's first frame has none before it.
        if passed[at] < passed[at + 1] and segment.leading + at > 0
    ]


def _shown_counts(segment: SegmentPlan) -> list[int]:
    """For each network frame that is shown, how many output frames show it."""
    counts: list[int] = []
    for position, repeats in enumerate(segment.repeats):
        if repeats:
            counts.append(repeats)
        if segment.between:
            counts += [1] * len(segment.between[position])
    return counts[segment.leading : len(counts) - segment.trailing]


def _times_before(seconds: Fraction) -> int:
    early = ceil((seconds - FIRST_TIME) / EARLY_STEP)
    later = ceil((seconds - LATER_TIME) / LATER_STEP)
    return min(max(early, 0), EARLY_TIMES) + max(later, 0)


class FilterMeter:
    """Measures the pairs of one segment, whose frames come from one thread, in another one."""

    most_pixels = MOST_LARGE_PIXELS

    def __init__(self, render: RenderPlan, segment: SegmentPlan, watchdog: Watchdog) -> None:
        self._render = render
        self._watchdog = watchdog
        self._seconds = frozenset(measured_positions(render, segment))
        self._waiting: PipelineQueue[_Averaged | None] = PipelineQueue(watchdog, maxsize=MOST_WAITING)
        self.positions = self._seconds | {position - 1 for position in self._seconds}
        """Those of the network frames that it needs, in the segment."""
        self.pairs: list[FilteredPair] = []

    def add(self, position: int, frame: Frame, lumas: AveragedLuma) -> None:
        """In the order of `positions`: an input frame, which must not change, and its picture's lumas."""
        self._waiting.put(_Averaged(position, frame, lumas))

    def end(self) -> None:
        """Called after the last frame."""
        self._waiting.put(None)

    def measure(self) -> None:
        """Measures all pairs; for a thread of its own, which ends after `end`."""
        last: tuple[int, Plane, AveragedLuma] | None = None
        while (one := self._waiting.get()) is not None:
            reference = luma(one.frame, source=self._render.source, target=self._render.target)
            if one.position in self._seconds and last is not None and last[0] == one.position - 1:
                self.pairs.append(_pair(last[1], reference, last[2], one.lumas))
            last = one.position, reference, one.lumas
            self._watchdog.progress()


class _Averaged(NamedTuple):
    position: int
    frame: Frame
    lumas: AveragedLuma


def _pair(
    first_reference: Plane, reference: Plane, first: AveragedLuma, second: AveragedLuma
) -> FilteredPair:
    motion = past_motion(first_reference, reference)
    errors: tuple[float, float] | tuple[None, None] = (None, None)
    if motion.is_known.any():
        sampled = motion.at(second.before.shape)
        errors = sampled.error(first.before, second.before), sampled.error(first.after, second.after)
    return FilteredPair(
        error_before=errors[0],
        error_after=errors[1],
        sharpness_before=_sharpness(second.before),
        sharpness_after=_sharpness(second.after),
        distance=mean_square(second.after - second.before),
    )


def _sharpness(plane: Plane) -> float:
    return float(np.abs(cv2.Laplacian(plane, cv2.CV_32F)).mean(dtype=np.float64))


def stored_pairs(segments: Iterable[Sequence[Sequence[Any]] | None]) -> list[FilteredPair]:
    """Those of all segments, as their rows have them."""
    return [FilteredPair.from_json(figures) for pairs in segments for figures in pairs or ()]
