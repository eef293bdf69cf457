"""Every size of picture: what the encoders refuse is padded and cropped."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest


# x265, which codes more than 8 bits, takes nothing under 16 pixels a side, and no long picture under 32.
@pytest.mark.parametrize(
    ("size", "pix_fmt"),
    [("1x1", "yuv420p"), ("3x2", "gbrp10le"), ("5x1056", "yuv422p10le")],
)
def test_small_pictures_come_out_whole(
    size: str,
    pix_fmt: str,
    clip: Callable[..., Path],
    rendered: Callable[..., Any],
    ffmpeg: Callable[..., bytes],
) -> None:
    source = clip(
        "a.mkv", "-c:v", "ffv1", "-vf", f"scale={size.replace('x', ':')}", "-pix_fmt", pix_fmt, frames=2
    )
    result = rendered(source)
    width, height = map(int, size.split("x"))
    assert (result.stream["width"], result.stream["height"]) == (4 * width, 4 * height)
    assert result.thumbnail.stat().st_size > 0
    depth = 8 if pix_fmt == "yuv420p" else 10
    # In the format that it has: converted to gray, newer versions of ffmpeg change the samples.
    raw = np.frombuffer(ffmpeg("-i", result.output, "-f", "rawvideo", "-"), np.uint8 if depth == 8 else "<u2")
    luma = raw.reshape(2, -1)[:, : 16 * width * height].reshape(2, 4 * height, 4 * width)
    # No padding shows: each sample of the input became a block of its own.
    np.testing.assert_array_equal(luma, luma[:, ::4, ::4].repeat(4, axis=1).repeat(4, axis=2))
