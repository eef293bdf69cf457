"""What retiming brings: every second frame of real clips is left out and made again, and compared with what it was.

    .venv/bin/python -m bench.retime [--clips DIR] [--frames 61] [--variants]

Ways: `nearest`, `blend`, `motion`, and ffmpeg's `minterpolate` in its motion-compensated mode. Luma: mean PSNR (at most
60 dB count for a frame: beyond that nothing is seen) and mean SSIM over the frames made again. Time is that of all
threads. Clips whose every frame is nearly the same say little; they are there because nothing may break in them.
`--variants` compares `motion` with itself, one decision changed at a time.
"""

import argparse
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TypeAlias
from unittest.mock import patch

import cv2
import numpy as np
from numpy.typing import NDArray

from app.platform.media.rates import Retime
from bench.clips import size_of
from worker.inference.frames import FrameFormat
from worker.video.retime import Retimer
from worker.video.timeline import FULL_PHASE

MEDIA = Path(__file__).parents[1] / "tests" / "media"
MOST_DECIBELS = 60.0
# One decision of `worker.video.motion` each.
VARIANTS: dict[str, dict[str, object]] = {
    "motion, as it is": {},
    "one round": {"ROUNDS": 1},
    "three rounds": {"ROUNDS": 3},
    "compared over 5x5": {"NEIGHBOURHOOD": 5},
    "compared over 9x9": {"NEIGHBOURHOOD": 9},
    "choices not brought into line": {"SMOOTHING": 1},
    "trusted a third as far": {"MISMATCH": 10.0},
    "always trusted": {"MISMATCH": 10_000.0},
    "nothing held still": {"STATIC_DIFFERENCE": (-2.0, -1.0)},
    "flow of half the size": {"MAX_FLOW_PIXELS": 1},
    "DIS, preset fast": {"cv2.DISOPTICAL_FLOW_PRESET_MEDIUM": cv2.DISOPTICAL_FLOW_PRESET_FAST},
    "DIS, preset ultrafast": {"cv2.DISOPTICAL_FLOW_PRESET_MEDIUM": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST},
}

Frame: TypeAlias = NDArray[np.uint8]
# By number.
Made: TypeAlias = dict[int, Frame]


@dataclass(frozen=True, kw_only=True)
class Score:
    decibels: float
    ssim: float


@dataclass(frozen=True, kw_only=True)
class Clip:
    name: str
    source: FrameFormat
    frames: Sequence[Frame]

    @property
    def left_out(self) -> range:
        return range(1, len(self.frames) - 1, 2)

    def luma(self, frame: Frame) -> NDArray[np.float32]:
        return self.source.split(frame)[0].astype(np.float32)


def read(path: Path, frames: int) -> Clip:
    width, height = size_of(path)
    source = FrameFormat(width=width, height=height)
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-map", "0:v:0", "-frames:v", str(frames)]
    command += ["-fps_mode", "passthrough", "-pix_fmt", "yuv420p", "-f", "rawvideo", "pipe:1"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    return Clip(name=path.stem, source=source, frames=split(raw, source))


def split(raw: bytes, source: FrameFormat) -> list[Frame]:
    size = source.frame_bytes
    return [np.frombuffer(raw, np.uint8, size, at) for at in range(0, len(raw) - size + 1, size)]


def nearest(clip: Clip) -> Made:
    return {number: clip.frames[number - 1] for number in clip.left_out}


def retimed(way: Retime) -> Callable[[Clip], Made]:
    def make(clip: Clip) -> Made:
        retimer = Retimer(way, clip.source)
        made = {}
        for number in clip.left_out:
            made[number] = np.empty(clip.source.frame_bytes, np.uint8)
            pair = retimer.pair(clip.frames[number - 1], clip.frames[number + 1])
            pair.frame_at(FULL_PHASE // 2, made[number])
        return made

    return make


def minterpolate(clip: Clip) -> Made:
    """Of ffmpeg, which looks at two frames before and two after, and makes none near the ends."""
    given = ["-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", f"{clip.source.width}x{clip.source.height}"]
    graph = "[0:v]minterpolate=fps=50:mi_mode=mci,split[a][b]"
    with tempfile.TemporaryDirectory(prefix="regen-bench-") as name:
        listing = Path(name) / "listing"
        command = ["ffmpeg", "-v", "error", *given, "-r", "25", "-i", "pipe:0", "-filter_complex", graph]
        command += ["-map", "[a]", "-fps_mode", "passthrough", "-f", "rawvideo", "pipe:1"]
        command += ["-map", "[b]", "-fps_mode", "passthrough", "-f", "framecrc", str(listing)]
        frames = b"".join(frame.tobytes() for frame in clip.frames[::2])
        raw = subprocess.run(command, input=frames, capture_output=True, check=True).stdout
        lines = [line.split(",") for line in listing.read_text().splitlines() if not line.startswith("#")]
    return {int(line[2]): frame for line, frame in zip(lines, split(raw, clip.source), strict=True)}


def ssim(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Wang et al. 2004: windows of 11 pixels, Gaussian of 1.5, for codes up to 255."""

    def window(plane: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(cv2.GaussianBlur(plane, (11, 11), 1.5), np.float32)

    mean, mean_other = window(one), window(other)
    spread, spread_other = window(one * one) - mean**2, window(other * other) - mean_other**2
    common = window(one * other) - mean * mean_other
    upper = (2 * mean * mean_other + 6.5025) * (2 * common + 58.5225)
    lower = (mean**2 + mean_other**2 + 6.5025) * (spread + spread_other + 58.5225)
    return float(np.mean(upper / lower))


def decibels(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    error = float(np.mean((one - other) ** 2))
    return MOST_DECIBELS if error == 0 else min(MOST_DECIBELS, float(10 * np.log10(255**2 / error)))


def cpu_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def score(clip: Clip, made: Made, numbers: Sequence[int]) -> Score:
    pairs = [(clip.luma(made[number]), clip.luma(clip.frames[number])) for number in numbers]
    return Score(
        decibels=fmean(decibels(*pair) for pair in pairs),
        ssim=fmean(ssim(*pair) for pair in pairs),
    )


def timed(make: Callable[[Clip], Made], clip: Clip) -> tuple[Made, float]:
    """What it makes, and milliseconds a frame left out."""
    start = cpu_seconds()
    made = make(clip)
    return made, 1000 * (cpu_seconds() - start) / len(clip.left_out)


def compare(clips: Sequence[Clip], ways: dict[str, Callable[[Clip], Made]]) -> None:
    print("| clip | frames |" + "".join(f" {way} |" for way in ways))
    print("|---|---|" + "---|" * len(ways))
    found: dict[str, list[Score]] = {way: [] for way in ways}
    for clip in clips:
        made = {way: timed(make, clip) for way, make in ways.items()}
        # Those that every way has made.
        numbers = [number for number in clip.left_out if all(number in frames for frames, _ in made.values())]
        cells = []
        for way, (frames, milliseconds) in made.items():
            one = score(clip, frames, numbers)
            found[way].append(one)
            cells.append(f"{one.decibels:.2f} dB, {one.ssim:.4f}, {milliseconds:.0f} ms")
        print(f"| {clip.name} | {len(numbers)} | {' | '.join(cells)} |", flush=True)
    means = [
        f"{fmean(one.decibels for one in scores):.2f} dB, {fmean(one.ssim for one in scores):.4f}"
        for scores in found.values()
    ]
    print(f"| mean | | {' | '.join(means)} |")


def vary(clips: Sequence[Clip]) -> None:
    print("| variant | PSNR | SSIM | CPU time a frame |\n|---|---|---|---|")
    for name, changes in VARIANTS.items():
        with ExitStack() as stack:
            for target, value in changes.items():
                stack.enter_context(patch(f"worker.video.motion.{target}", value))
            results = [(clip, *timed(retimed(Retime.MOTION), clip)) for clip in clips]
        scores = [score(clip, made, clip.left_out) for clip, made, _ in results]
        print(
            f"| {name} | {fmean(one.decibels for one in scores):.2f} dB | "
            f"{fmean(one.ssim for one in scores):.4f} | {fmean(spent for _, _, spent in results):.0f} ms |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="What retiming brings, on frames left out and made again.")
    parser.add_argument("--clips", type=Path, help="a directory of more clips (*.mp4)")
    parser.add_argument("--frames", type=int, default=61, help="of each clip at most")
    parser.add_argument("--variants", action="store_true", help="vary the way `motion` instead")
    arguments = parser.parse_args()
    directories = [MEDIA, *([arguments.clips] if arguments.clips else [])]
    paths = sorted(path for directory in directories for path in directory.glob("*.mp4"))
    clips = [read(path, arguments.frames) for path in paths]
    if arguments.variants:
        vary(clips)
        return
    ways = {"nearest": nearest, "blend": retimed(Retime.BLEND), "motion": retimed(Retime.MOTION)}
    compare(clips, ways | {"minterpolate": minterpolate})


if __name__ == "__main__":
    main()
