"""Reads the boxes of MP4 files (ISO/IEC 14496-12), without a process for each file."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from app.platform.errors import FfmpegError
from app.platform.media.mp4_boxes import HEADER_BYTES, MOST_BOXES, read_box

# Of a sample description before its first entry, and of a visual entry before the boxes in it, with its own header.
ENTRIES_START, VISUAL_ENTRY_BYTES = 8, 86
# Within a media header: where the time scale is, by the header's version.
TIMESCALE_START = {0: 12, 1: 20}
CODEC_CONFIGURATIONS = (b"avcC", b"hvcC")


def find_boxes(file: BinaryIO, start: int, end: int, *kinds: bytes) -> Iterator[tuple[int, int]]:
    """Where the contents of the boxes of these kinds start and end, among those from `start` to `end`.

    Raises FfmpegError for what no muxer writes.
    """
    for _ in range(MOST_BOXES):
        if start + HEADER_BYTES > end:
            return
        box = read_box(file, start)
        if box.end < box.start:
            raise _unexpected(f"box of {box.end - start} bytes at {start}")
        if box.kind in kinds:
            yield box.start, box.end
        start = box.end
    raise _unexpected(f"more than {MOST_BOXES} boxes")


def read_bytes(file: BinaryIO, at: int, count: int) -> bytes:
    file.seek(at)
    return file.read(count)


def read_video_coding(path: Path) -> tuple[int, bytes]:
    """The first track's ticks per second, and its codec's parameter sets as MP4 stores them.

    Raises FfmpegError if the file is not what ffmpeg writes.
    """
    with path.open("rb") as file:

        def inner(place: tuple[int, int], *kinds: bytes) -> tuple[int, int]:
            found = next(find_boxes(file, *place, *kinds), None)
            if found is None:
                raise _unexpected(f"no {kinds[0].decode()} in {path.name}")
            return found

        media = inner(inner(inner((0, path.stat().st_size), b"moov"), b"trak"), b"mdia")
        header, _ = inner(media, b"mdhd")
        version = read_bytes(file, header, 1)[0]
        timescale = int.from_bytes(read_bytes(file, header + TIMESCALE_START[version], 4))
        entries, end = inner(inner(inner(media, b"minf"), b"stbl"), b"stsd")
        start, end = inner((entries + ENTRIES_START + VISUAL_ENTRY_BYTES, end), *CODEC_CONFIGURATIONS)
        return timescale, read_bytes(file, start, end - start)


def _unexpected(detail: str) -> FfmpegError:
    return FfmpegError("The written file is not as expected.", detail=detail)
