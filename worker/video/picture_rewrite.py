"""Copies a segment's file with other coded pictures: its sample tables (ISO/IEC 14496-12) follow their new sizes."""

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from app.platform.errors import FfmpegError
from app.platform.media.mp4_boxes import LONG_HEADER_BYTES
from worker.video.mp4_boxes import CONTAINERS, VERSION, box_bytes, read_bytes, walk_boxes

# A box with its size in 64 bits.
LONG_SIZE = 1


def rewrite_pictures(
    source: Path, destination: Path, pieces: Sequence[bytes], change: Callable[[bytes, bytes], bytes]
) -> None:
    """Copy `source`, a file of one track as ffmpeg writes it. `change` gets each picture with its piece of `pieces`,
    which are in the order in which pictures are shown, and returns the picture to write.

    Raises FfmpegError if the file is not what ffmpeg writes, and what `change` raises.
    """
    with source.open("rb") as file, destination.open("wb") as copy:
        boxes = {box.kind: box for box in walk_boxes(file, 0, source.stat().st_size)}
        if not boxes.keys() >= {b"ftyp", b"mdat", b"moov"}:
            raise FfmpegError("The written file is not as expected.", detail=f"boxes {list(boxes)}")
        movie = read_bytes(file, boxes[b"moov"].start, boxes[b"moov"].end - boxes[b"moov"].start)
        tables = dict(_tables(BytesIO(movie), 0, len(movie)))
        sizes, start = _sizes(tables), _chunk_start(tables)
        if start + sum(sizes) != boxes[b"mdat"].end:
            raise FfmpegError("The written file is not as expected.", detail="pictures are not side by side")
        kind = boxes[b"ftyp"]
        copy.write(box_bytes(b"ftyp", read_bytes(file, kind.start, kind.end - kind.start)))
        media = copy.tell()
        copy.write(bytes(LONG_HEADER_BYTES))
        file.seek(start)
        written = [
            copy.write(change(file.read(size), pieces[number]))
            for number, size in zip(_shown_numbers(tables, len(sizes)), sizes, strict=True)
        ]
        copy.write(box_bytes(b"moov", _with_tables(movie, _one_chunk(written, media + LONG_HEADER_BYTES))))
        copy.seek(media)
        copy.write(struct.pack(">I4sQ", LONG_SIZE, b"mdat", LONG_HEADER_BYTES + sum(written)))


def _tables(movie: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content, after version and flags, of each box that contains none."""
    for box in walk_boxes(movie, start, end):
        if box.kind in CONTAINERS:
            yield from _tables(movie, box.start, box.end)
        else:
            yield box.kind, read_bytes(movie, box.start + VERSION, box.end - box.start - VERSION)


def _sizes(tables: Mapping[bytes, bytes]) -> tuple[int, ...]:
    size, count = struct.unpack_from(">2I", tables[b"stsz"])
    return (size,) * count if size else struct.unpack_from(f">{count}I", tables[b"stsz"], 8)


def _chunk_start(tables: Mapping[bytes, bytes]) -> int:
    """Where the first chunk is in the file."""
    format_, table = (">Q", b"co64") if b"co64" in tables else (">I", b"stco")
    start: int
    (start,) = struct.unpack_from(format_, tables[table], 4)
    return start


def _shown_numbers(tables: Mapping[bytes, bytes], count: int) -> list[int]:
    """For each picture in decoding order, its number in the order in which they are shown."""
    times, time = [], 0
    for delta in _runs(tables[b"stts"]):
        times.append(time)
        time += delta
    if b"ctts" in tables:
        # Below 0 only in some files; the order is the same either way.
        offsets = (struct.unpack(">i", struct.pack(">I", offset))[0] for offset in _runs(tables[b"ctts"]))
        times = [time + offset for time, offset in zip(times, offsets, strict=True)]
    numbers = [0] * count
    for number, position in enumerate(sorted(range(count), key=times.__getitem__)):
        numbers[position] = number
    return numbers


def _runs(table: bytes) -> Iterator[int]:
    """The values of a table of runs, each as often as it says."""
    for count, value in struct.iter_unpack(">2I", table[4:]):
        for _ in range(count):
            yield value


def _one_chunk(sizes: list[int], start: int) -> dict[bytes, bytes]:
    """The tables of pictures that are all in one chunk."""
    count = len(sizes)
    return {
        b"stsz": struct.pack(f">3I{count}I", 0, 0, count, *sizes),
        b"stsc": struct.pack(">5I", 0, 1, 1, count, 1),
        b"stco": struct.pack(">3I", 0, 1, start),
        b"co64": struct.pack(">2IQ", 0, 1, start),
    }


def _with_tables(movie: bytes, tables: Mapping[bytes, bytes]) -> bytes:
    """The content of a box that contains boxes, with these in place of its own."""
    changed = b""
    for box in walk_boxes(BytesIO(movie), 0, len(movie)):
        content = movie[box.start : box.end]
        if box.kind in CONTAINERS:
            content = _with_tables(content, tables)
        changed += box_bytes(box.kind, tables.get(box.kind, content))
    return changed
