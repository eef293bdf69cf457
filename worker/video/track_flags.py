"""Switches subtitle tracks of a written MP4 file off: ffmpeg's muxer switches the first one on if none is the default.

ISO/IEC 14496-12: the lowest bit of a track header's flags says whether the track is enabled.
"""

from collections.abc import Iterator, Set
from pathlib import Path
from typing import BinaryIO

from app.platform.errors import FfmpegError

ENABLED = 1
SUBTITLE_HANDLERS = (b"sbtl", b"text", b"subt")
# Of a box: its size in 32 bits and its kind; with a size of 1, the size in 64 bits follows.
HEADER_BYTES, LONG_HEADER_BYTES = 8, 16
# Within a track header and a handler box: version (8 bits) and flags (24 bits); the handler's kind after 4 bytes more.
FLAGS_END, HANDLER_START = 4, 8


def switch_off_subtitles(path: Path, numbers: Set[int]) -> None:
    """Switch off the subtitle tracks with these numbers, counted from 0 among the subtitle tracks.

    Raises FfmpegError if the file is not what ffmpeg writes.
    """
    if not numbers:
        return
    with path.open("r+b") as file:
        number = 0
        for movie in _find(file, 0, path.stat().st_size, b"moov"):
            for track in _find(file, *movie, b"trak"):
                headers = [start for start, _ in _find(file, *track, b"tkhd")]
                handlers = [
                    _read(file, start + HANDLER_START, 4)
                    for media in _find(file, *track, b"mdia")
                    for start, _ in _find(file, *media, b"hdlr")
                ]
                if handlers[0] not in SUBTITLE_HANDLERS:
                    continue
                if number in numbers:
                    at = headers[0] + FLAGS_END - 1
                    flags = _read(file, at, 1)[0]
                    file.seek(at)
                    file.write(bytes([flags & ~ENABLED]))
                number += 1


def _find(file: BinaryIO, start: int, end: int, kind: bytes) -> Iterator[tuple[int, int]]:
    """Where the contents of the boxes of that kind start and end, among those from `start` to `end`."""
    while start + HEADER_BYTES <= end:
        header = _read(file, start, HEADER_BYTES)
        size, length = int.from_bytes(header[:4]), HEADER_BYTES
        if size == 1:
            size, length = int.from_bytes(_read(file, start + HEADER_BYTES, 8)), LONG_HEADER_BYTES
        if size < length:
            raise FfmpegError(
                "The file that was written is not as expected.", detail=f"box of {size} bytes at {start}"
            )
        if header[4:] == kind:
            yield start + length, start + size
        start += size


def _read(file: BinaryIO, at: int, count: int) -> bytes:
    file.seek(at)
    return file.read(count)
