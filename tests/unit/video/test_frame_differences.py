"""How much frames differ, as ffmpeg measures it, against numpy."""

import subprocess
import zlib
from itertools import pairwise

import numpy as np
import pytest

from app.platform.media.ffmpeg import find_programs
from worker.video.frame_differences import BLOCKS, CODE, read_difference, with_differences

SIZE = 4 * BLOCKS


@pytest.mark.parametrize("number", [0, 1, 255, 256, 30_583, 65_535])
def test_two_bytes_are_read_from_their_checksum(number: int) -> None:
    checksum = zlib.adler32(number.to_bytes(2, "little"), 0)
    assert read_difference(checksum) == number / CODE


def test_the_largest_difference_of_a_block_is_found_anywhere() -> None:
    rng = np.random.default_rng(7)
    frames = [np.full((SIZE, SIZE), 90, np.uint8)]
    for _ in range(24):
        frame = frames[-1].copy()
        row, column = rng.integers(0, BLOCKS, 2) * 4
        frame[row : row + 4, column : column + 4] += rng.integers(1, 60, (4, 4)).astype(np.uint8)
        frames.append(frame)
    frames.append(frames[-1])
    raw = "rawvideo"
    command = [
        *(find_programs().ffmpeg, "-v", "error", "-f", raw, "-pix_fmt", "gray", "-s", f"{SIZE}x{SIZE}"),
        *("-i", "pipe:0", *with_differences("format=yuv420p", stream="0:0")),
        *("-c:v", raw, "-fps_mode", "passthrough", "-f", "framecrc", "pipe:1"),
    ]
    answer = subprocess.run(command, input=b"".join(map(bytes, frames)), capture_output=True, check=True)
    lines = [line.split(",") for line in answer.stdout.decode().splitlines() if line.startswith("1,")]
    found = [read_difference(int(fields[5], 16)) for fields in lines]
    assert len(found) == len(frames) - 1
    for difference, (before, after) in zip(found, pairwise(frames), strict=True):
        changed = np.abs(after.astype(float) - before).reshape(BLOCKS, 4, BLOCKS, 4).mean(axis=(1, 3))
        # Full-range gray has become limited-range luma.
        assert difference == pytest.approx(changed.max() * 219 / 255, abs=0.7)
    assert found[-1] == 0
