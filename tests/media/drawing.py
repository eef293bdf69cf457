"""Moving pictures with each frame's number in them, and a click: what the corpus' clips are made of.

The number stands in the lowest quarter of the picture as six blocks, black or white, the lowest bit leftmost: large
enough to be read through any encoder, from a deinterlaced frame, and at four times the size.
"""

import subprocess
import wave
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MEDIA = Path(__file__).parent
BUNNY = MEDIA / "bunny-480x270-25fps.mp4"
NUMBER_BITS = 6
# Between two fields.
PAN_PIXELS = 3
WHITE, BLACK = 55_000, 8_000
SOUND_RATE = 48_000
CLICK_SECONDS = 0.01


@lru_cache(maxsize=8)
def _scenery(width: int, height: int, count: int) -> NDArray[np.uint16]:
    """The first frames of a real clip, in RGB of 16 bits: reduced from more pixels, so the low bits are real too."""
    filters = (
        f"scale={width}:{height}:force_original_aspect_ratio=increase:flags=area+accurate_rnd+full_chroma_int,"
        f"crop={width}:{height}"
    )
    raw = subprocess.run(
        [
            *("ffmpeg", "-v", "error", "-i", str(BUNNY), "-frames:v", str(count), "-vf", filters),
            *("-f", "rawvideo", "-pix_fmt", "rgb48le", "-"),
        ],
        capture_output=True,
        check=True,
        stdin=subprocess.DEVNULL,
    ).stdout
    frames = np.frombuffer(raw, "<u2").reshape(-1, height, width, 3)
    assert len(frames) == count
    return frames


def draw(count: int, width: int, height: int) -> NDArray[np.uint16]:
    """`count` frames, each with its number."""
    frames = _scenery(width, height, count).copy()
    for number, frame in enumerate(frames):
        _stamp(frame, number)
    return frames


def draw_fields(count: int, width: int, height: int) -> NDArray[np.uint16]:
    """Two moments for each of `count` frames, both with its number: what an interlaced camera sees while it pans.

    As in such a camera, details finer than two lines are smoothed away: they would flicker.
    """
    moments = 2 * count
    wide = _scenery(width + PAN_PIXELS * moments, height, moments).astype(np.float64)
    seen = np.stack([frame[:, PAN_PIXELS * moment :][:, :width] for moment, frame in enumerate(wide)])
    above, below = np.roll(seen, 1, axis=1), np.roll(seen, -1, axis=1)
    above[:, 0], below[:, -1] = seen[:, 0], seen[:, -1]
    frames: NDArray[np.uint16] = ((above + 2 * seen + below) / 4).round().astype(np.uint16)
    for moment, frame in enumerate(frames):
        _stamp(frame, moment // 2)
    return frames


def _stamp(frame: NDArray[np.uint16], number: int) -> None:
    height, width = frame.shape[:2]
    for bit in range(NUMBER_BITS):
        rows, columns = number_block(bit, width, height)
        frame[rows, columns] = WHITE if number >> bit & 1 else BLACK


def number_block(bit: int, width: int, height: int) -> tuple[slice, slice]:
    """Where that bit of the number stands."""
    return (
        slice(height * 3 // 4, height),
        slice(width * bit // NUMBER_BITS, width * (bit + 1) // NUMBER_BITS),
    )


def read_number(picture: NDArray[np.floating]) -> int:
    """The number in a picture of values from 0 to 1 (rows, columns, ...)."""
    height, width = picture.shape[:2]
    number = 0
    for bit in range(NUMBER_BITS):
        rows, columns = number_block(bit, width, height)
        block = picture[rows, columns]
        high, wide = block.shape[0] // 4, block.shape[1] // 4
        if block[high:-high, wide:-wide].mean() > (WHITE + BLACK) / 2 / 65_535:
            number |= 1 << bit
    return number


def write_click(path: Path, *, seconds: float, at_seconds: float, channels: int = 1) -> Path:
    """A WAV file: a low hum, and a burst of noise that correlates with itself at one place alone."""
    count = round(seconds * SOUND_RATE)
    sound = 0.01 * np.sin(2 * np.pi * 220 * np.arange(count) / SOUND_RATE)
    burst = round(CLICK_SECONDS * SOUND_RATE)
    start = round(at_seconds * SOUND_RATE)
    noise = np.random.default_rng(1).uniform(-0.7, 0.7, burst) * np.hanning(burst)
    sound[start : start + burst] += noise
    samples = np.repeat(np.round(sound * 32_767).astype("<i2")[:, None], channels, axis=1)
    with wave.open(str(path), "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(2)
        out.setframerate(SOUND_RATE)
        out.writeframes(samples.tobytes())
    return path
