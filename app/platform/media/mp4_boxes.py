"""The boxes of MP4 files (ISO/IEC 14496-12)."""

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from app.platform.errors import LimitExceeded

# Of a box: its size in 32 bits and its kind; with a size of 1, the size in 64 bits follows.
HEADER_BYTES, LONG_HEADER_BYTES = 8, 16
# In one place. A fragment has two, and every opening of a file by ffmpeg takes 6 microseconds for each fragment.
MOST_BOXES = 200_000


@dataclass(frozen=True)
class Box:
    """`start` and `end` of its content, in bytes of the file; `end` is before `start` if the header makes no sense."""

    kind: bytes
    start: int
    end: int


def read_box(file: BinaryIO, at: int) -> Box:
    """The box whose header is at `at`."""
    header = _read(file, at, HEADER_BYTES)
    size, length = int.from_bytes(header[:4]), HEADER_BYTES
    if size == 1:
        size, length = int.from_bytes(_read(file, at + HEADER_BYTES, 8)), LONG_HEADER_BYTES
    return Box(kind=header[4:], start=at + length, end=at + size)


def check_box_count(path: Path) -> None:
    """Raises LimitExceeded for an MP4 file of more than MOST_BOXES boxes. In other files the walk soon ends."""
    end, at = path.stat().st_size, 0
    with path.open("rb") as file:
        for _ in range(MOST_BOXES):
            if at + HEADER_BYTES > end:
                return
            box = read_box(file, at)
            if box.end < box.start:
                return
            at = box.end
    if at < end:
        raise LimitExceeded(
            f"The file consists of more than {MOST_BOXES // 2:,} fragments, each of which costs time whenever the file "
            "is opened. `ffmpeg -i input.mp4 -c copy output.mp4` joins them."
        )


def _read(file: BinaryIO, at: int, count: int) -> bytes:
    file.seek(at)
    return file.read(count)
