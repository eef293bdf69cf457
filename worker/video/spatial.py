"""Writes the tags of spherical and stereoscopic video (Google's Spherical Video V2) into a finished MP4 file.

ffmpeg writes them only for streams that it copies from a file that has them.
"""

import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

from app.platform.media.first_frames import Spatial

# Boxes that contain boxes, on the way to the sample description and to the tables of chunk offsets.
CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
# Bytes of a box's header, and of a full box's version and flags (ISO/IEC 14496-12, 4.2).
HEADER, VERSION = 8, 4
# The tables of chunk offsets, and the struct format of an offset.
OFFSET_TABLES = {b"stco": "I", b"co64": "Q"}


def write_spatial(path: Path, spatial: Spatial) -> None:
    """Add the tags to the first video track of the MP4 file `path`, by way of a copy beside it.

    Raises ValueError if the file is not laid out as ffmpeg writes it, and OSError.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        at, moov = 0, b""
        while at < size and not moov:
            file.seek(at)
            length, kind = struct.unpack(">I4s", file.read(HEADER))
            if kind == b"moov":
                moov = struct.pack(">I4s", length, kind) + file.read(length - HEADER)
            elif length < HEADER:
                break
            else:
                at += length
        if not moov:
            raise ValueError("the file's index does not precede its media")
        tagged = path.with_name(f"{path.name}.tagged")
        try:
            with tagged.open("wb") as copy:
                file.seek(0)
                copy.write(file.read(at))
                copy.write(_with_boxes(moov, _boxes(spatial)))
                file.seek(at + len(moov))
                shutil.copyfileobj(file, copy, 1 << 20)
            tagged.replace(path)
        finally:
            tagged.unlink(missing_ok=True)


def _with_boxes(moov: bytes, added: bytes) -> bytes:
    """The index with `added` at the end of the first visual sample entry; the media moves by as many bytes."""
    changed = bytearray(moov)
    end = None
    for kind, start, parents in _walk(moov, 0, len(moov), ()):
        if kind == b"stsd" and end is None:
            entry = start + HEADER + VERSION + 4
            entry_length, coding = struct.unpack_from(">I4s", moov, entry)
            if coding in (b"avc1", b"hvc1"):
                end = entry + entry_length
                for box in (*parents, start, entry):
                    (before,) = struct.unpack_from(">I", moov, box)
                    struct.pack_into(">I", changed, box, before + len(added))
        elif kind in OFFSET_TABLES:
            (count,) = struct.unpack_from(">I", moov, start + HEADER + VERSION)
            table = f">{count}{OFFSET_TABLES[kind]}"
            offsets = struct.unpack_from(table, moov, start + HEADER + VERSION + 4)
            try:
                struct.pack_into(
                    table, changed, start + HEADER + VERSION + 4, *(offset + len(added) for offset in offsets)
                )
            except struct.error as error:
                raise ValueError("an offset has too few bits") from error
    if end is None:
        raise ValueError("the file has no video")
    return bytes(changed[:end] + added + changed[end:])


def _walk(
    data: bytes, start: int, end: int, parents: tuple[int, ...]
) -> Iterator[tuple[bytes, int, tuple[int, ...]]]:
    """Kind and place of every box, and the places of those around it."""
    while start + HEADER <= end:
        length, kind = struct.unpack_from(">I4s", data, start)
        if not HEADER <= length <= end - start:
            raise ValueError(f"a box of {length} bytes")
        yield kind, start, parents
        if kind in CONTAINERS:
            yield from _walk(data, start + HEADER, start + length, (*parents, start))
        start += length


def _box(kind: bytes, content: bytes, *, full: bool = True) -> bytes:
    content = bytes(VERSION) + content if full else content
    return struct.pack(">I4s", HEADER + len(content), kind) + content


def _boxes(spatial: Spatial) -> bytes:
    boxes = b""
    if spatial.stereo is not None:
        boxes += _box(b"st3d", bytes([{"mono": 0, "top and bottom": 1, "side by side": 2}[spatial.stereo]]))
    if spatial.projection is not None:
        pose = struct.pack(">3i", *(angle << 16 for angle in (spatial.yaw, spatial.pitch, spatial.roll)))
        shape = (
            _box(b"equi", bytes(16))
            if spatial.projection == "equirectangular"
            else _box(b"cbmp", struct.pack(">2I", 0, spatial.padding))
        )
        projection = _box(b"proj", _box(b"prhd", pose) + shape, full=False)
        boxes += _box(b"sv3d", _box(b"svhd", b"\0") + projection, full=False)
    return boxes
