"""What pixels that stay as they were cost: clips of which a known share changes from frame to frame.

    .venv/bin/python -m bench.still [--engine regen-4x-lite] [--size 320x180] [--frames 12] [--rounds 3]

Every scene is upscaled in turns by two upscalers: as it is, and with everything computed (`_last` forgotten before
every frame, which is all that the upscaler remembers of frames). The bytes of the two are compared, all of them. The
first pass over a scene pays for the proofs that parts of its sizes equal the whole; "later passes" do not: long scenes
tend there. Times are means over the frames after the first; of the rounds the median.

In the scenes named by a share, a rectangle of that share of the pixels, of the frame's shape, shows a moving picture in
an otherwise still one. A changed pixel reaches as far as the network's receptive radius, hence the dearer small shares;
regen-4x's radius is larger than most frames, so that with it only equal frames are saved.
"""

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import TypeAlias

import numpy as np

from bench.clips import FILM, LARGE_CARTOON, Frame, Size, decode, parse_size
from bench.machine import heading, table
from models.catalog import DEFAULT_ENGINE, ENGINES
from worker.inference.frames import FrameFormat
from worker.inference.upscaler import Upscaler, make_upscaler

# regen-4x costs thirty times as much.
SIZES: dict[str, Size] = {"regen-4x-lite": (320, 180), "regen-4x": (48, 32)}
SHARES = (0, 1, 5, 10, 25, 50, 100)
CURSOR: Size = (12, 18)
LETTER: Size = (8, 12)
FRAMES_OF_A_SLIDE = 6

Box: TypeAlias = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class Footage:
    """Natural frames of one format: `still` to stand, `moving` to move."""

    source: FrameFormat
    still: Frame
    moving: Sequence[Frame]
    slides: Sequence[Frame]


def overlaid(footage: Footage, base: Frame, shown: Frame, box: Box) -> Frame:
    """A copy of `base` with what `shown` has in the box (top, left, rows, columns; even numbers)."""
    made = base.copy()
    source = footage.source
    for under, over in zip(source.split(made), source.split(shown), strict=True):
        down, across = source.height // under.shape[0], source.width // under.shape[1]
        top, left, rows, columns = box[0] // down, box[1] // across, box[2] // down, box[3] // across
        under[top : top + rows, left : left + columns] = over[top : top + rows, left : left + columns]
    return made


def share(percent: int) -> Callable[[Footage, int], list[Frame]]:
    def make(footage: Footage, count: int) -> list[Frame]:
        height, width = footage.source.height, footage.source.width
        side = math.sqrt(percent / 100)
        rows, columns = (2 * round(length * side / 2) for length in (height, width))
        box = ((height - rows) // 4 * 2, (width - columns) // 4 * 2, rows, columns)
        return [overlaid(footage, footage.still, frame, box) for frame in footage.moving[:count]]

    return make


def cursor(footage: Footage, count: int) -> list[Frame]:
    """A dark rectangle that moves on by six pixels each frame."""
    source, dark = footage.source, np.full_like(footage.still, 64)
    boxes = [
        (
            6 * n % (source.height - CURSOR[1]) // 2 * 2,
            6 * n % (source.width - CURSOR[0]) // 2 * 2,
            *CURSOR[::-1],
        )
        for n in range(count)
    ]
    return [overlaid(footage, footage.still, dark, box) for box in boxes]


def typing(footage: Footage, count: int) -> list[Frame]:
    """A letter more each frame, all in one line; the line is begun anew when it is full."""
    source, light = footage.source, np.full_like(footage.still, 200)
    frame, frames = footage.still, []
    for n in range(count):
        left = n * LETTER[0] % (source.width // LETTER[0] * LETTER[0])
        frame = overlaid(footage, frame, light, (source.height // 4 * 2, left, LETTER[1], LETTER[0] - 2))
        frames.append(frame)
    return frames


def slides(footage: Footage, count: int) -> list[Frame]:
    return [footage.slides[n // FRAMES_OF_A_SLIDE % len(footage.slides)] for n in range(count)]


def twos(footage: Footage, count: int) -> list[Frame]:
    return [footage.moving[n // 2] for n in range(count)]


SCENES: dict[str, Callable[[Footage, int], list[Frame]]] = {
    **{f"{percent} % change": share(percent) for percent in SHARES},
    "a moving cursor": cursor,
    "typing": typing,
    f"slides of {FRAMES_OF_A_SLIDE} frames": slides,
    "animation on twos": twos,
}


def changed_share(frames: Sequence[Frame], source: FrameFormat) -> float:
    """Of the pixels' luma, from frame to frame."""
    pairs = zip(frames[1:], frames, strict=False)
    return fmean(float(np.mean(source.split(a)[0] != source.split(b)[0])) for a, b in pairs)


def run(upscaler: Upscaler, frames: Sequence[Frame], *, forgets: bool) -> tuple[float, list[Frame]]:
    """Mean seconds of a frame after the first, and what came out."""
    results, taken = [], []
    upscaler._last = None
    for frame in frames:
        if forgets:
            upscaler._last = None
        started = time.perf_counter()
        results += upscaler.upscale([frame])
        taken.append(time.perf_counter() - started)
    return fmean(taken[1:]), results


def measure(
    plain: Upscaler, whole: Upscaler, frames: Sequence[Frame], *, rounds: int
) -> tuple[float, float, float, bool]:
    """Seconds a frame: everything computed, the first pass, later passes; and whether all bytes were equal.

    `plain` is one that has proved no parts yet.
    """
    first, reference = run(plain, frames, forgets=False)
    everything: list[float] = []
    later: list[float] = []
    is_equal = True
    for _ in range(rounds):
        for upscaler, seconds_of in ((whole, everything), (plain, later)):
            seconds, results = run(upscaler, frames, forgets=upscaler is whole)
            seconds_of.append(seconds)
            is_equal &= all(np.array_equal(a, b) for a, b in zip(results, reference, strict=True))
    return median(everything), first, median(later), is_equal


def main() -> None:
    parser = argparse.ArgumentParser(description="What pixels that stay as they were cost.")
    parser.add_argument("--engine", choices=tuple(ENGINES), default=DEFAULT_ENGINE)
    parser.add_argument("--size", type=parse_size, help="columns x rows, even numbers")
    parser.add_argument("--frames", type=int, default=12, help="of each scene")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    size = arguments.size or SIZES[arguments.engine]
    if size[0] % 2 or size[1] % 2 or arguments.frames < 2:
        parser.error("sizes are even numbers, and scenes have at least 2 frames")
    source, moving = decode(LARGE_CARTOON, frames=arguments.frames, size=size, first=20)
    _, (still,) = decode(FILM, frames=1, size=size)
    _, shown = decode(LARGE_CARTOON, frames=60, size=size)
    footage = Footage(source=source, still=still, moving=moving, slides=(still, *shown[::20]))
    lines = []
    is_exact = True
    with tempfile.TemporaryDirectory(prefix="regen-bench-") as directory:

        def make() -> Upscaler:
            upscaler = make_upscaler(
                engine_id=arguments.engine,
                source=source,
                target=source.enlarged(ENGINES[arguments.engine].scale),
                weights_directory=directory,
                device=arguments.device,
            )
            upscaler.warm_up()
            upscaler.upscale([moving[0]])
            return upscaler

        whole = make()
        for name, scene in SCENES.items():
            frames = scene(footage, arguments.frames)
            everything, first, later, is_equal = measure(make(), whole, frames, rounds=arguments.rounds)
            is_exact &= is_equal
            lines.append(
                (
                    name,
                    f"{changed_share(frames, source):.2%}",
                    *(f"{1000 * seconds:.1f} ms" for seconds in (everything, first, later)),
                    *(f"{seconds / everything:.1%}" for seconds in (first, later)),
                    "every byte" if is_equal else "NO",
                )
            )
    print(heading(), end=" ")
    print(
        f"{arguments.engine} at {size[0]}x{size[1]}, {arguments.frames} frames, {arguments.rounds} rounds.\n"
    )
    head = ("scene", "pixels that change", "everything computed", "first pass", "later passes")
    print(table((*head, "of everything: first pass", "later passes", "equal"), lines))
    if not is_exact:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
