"""Another size of the output: its frames, its shape, and what is measured of it."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.output_size import OutputSize
from app.platform.media.time_range import TimeRange
from worker.video.quality import measure_quality

X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv444p", "-g", "5")


@pytest.mark.parametrize(
    ("asked", "source", "size"),
    [
        ({"scale": 1}, "64x48", (64, 48)),
        ({"scale": 1}, "65x49", (66, 50)),
        ({"scale": 3}, "64x48", (192, 144)),
        ({"max_width": 100}, "64x48", (100, 76)),
        ({"max_height": 24}, "64x48", (32, 24)),
    ],
)
def test_another_size(
    clip: Callable[..., Path],
    rendered: Callable[..., Any],
    decoded: Callable[..., Any],
    runner: FfmpegRunner,
    asked: dict[str, int],
    source: str,
    size: tuple[int, int],
) -> None:
    shape = f"scale={source.replace('x', ':')},setsar=4/3"
    path = clip("a.mp4", *X264, "-vf", shape, frames=12)
    part = TimeRange(Fraction("0.2"), Fraction("0.4"))
    made = rendered(path, size=OutputSize(**asked), part=part, segment_seconds=Fraction(1, 10))

    assert (made.stream["width"], made.stream["height"]) == size
    assert made.stream["sample_aspect_ratio"] == "4:3"
    assert (made.finished.properties.width, made.finished.properties.height) == size
    assert decoded(made.output).numbers == [5, 6, 7, 8, 9]
    quality = measure_quality(
        runner,
        source=path,
        output=made.output,
        render=made.plan,
        segments=made.segments,
        cancelled=lambda: False,
        stall_seconds=30,
    )
    if size == (64, 48):
        assert quality.psnr == 100
    # The stand-in repeats a row and a column of the odd one.
    assert quality.psnr > (15 if size == (66, 50) else 20)
    assert quality.frames == 5
