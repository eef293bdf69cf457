"""Writes the tags of spherical and stereoscopic video (Google's Spherical Video V2) into a finished MP4 file.

ffmpeg writes them only for streams that it copies from a file that has them.
"""

import shutil
import struct
from collections.abc import Iterator, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import structlog

from app.platform.errors import FfmpegError
from app.platform.media.first_frames import Spatial
from app.platform.media.mp4_boxes import HEADER_BYTES as HEADER
from worker.video.mp4_boxes import CONTAINERS, VERSION, box_bytes, find_boxes, read_bytes
from worker.video.side_data import SPHERICAL_WARNING, STEREO_WARNING

log = structlog.get_logger(__name__)

# The tables of chunk offsets, and the struct format of an offset.
OFFSET_TABLES = {b"stco": "I", b"co64": "Q"}


def write_spatial(path: Path, spatial: Spatial) -> None:
    """Add the tags to the first video track of the MP4 file `path`, by way of a copy beside it.

    Raises ValueError if the file is not laid out as ffmpeg writes it, and OSError.
    """
    with path.open("rb") as file:
        try:
            start, end = next(find_boxes(file, 0, path.stat().st_size, b"moov"))
            at = start - HEADER
            moov = read_bytes(file, at, end - at)
            changed = _with_boxes(moov, _boxes(spatial))
        except (StopIteration, FfmpegError, struct.error) as error:
            raise ValueError("the file is not laid out as ffmpeg writes it") from error
        tagged = path.with_name(f"{path.name}.tagged")
        try:
            with tagged.open("wb") as copy:
                file.seek(0)
                copy.write(file.read(at))
                copy.write(changed)
                file.seek(at + len(moov))
                shutil.copyfileobj(file, copy, 1 << 20)
            tagged.replace(path)
        finally:
            tagged.unlink(missing_ok=True)


def _with_boxes(moov: bytes, added: bytes) -> bytes:
    """The index with `added` at the end of the first visual sample entry; the media moves by as many bytes."""
    changed = bytearray(moov)
    end = None
    for kind, start, parents in _walk(BytesIO(moov), 0, len(moov), ()):
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
    moov: BinaryIO, start: int, end: int, parents: tuple[int, ...]
) -> Iterator[tuple[bytes, int, tuple[int, ...]]]:
    """Kind and place of every box that matters, and the places of those around it."""
    for kind in (*CONTAINERS, b"stsd", *OFFSET_TABLES):
        for content, after in find_boxes(moov, start, end, kind):
            place = content - HEADER
            yield kind, place, parents
            if kind in CONTAINERS:
                yield from _walk(moov, content, after, (*parents, place))


def _boxes(spatial: Spatial) -> bytes:
    full_box = partial(box_bytes, is_full=True)
    boxes = b""
    if spatial.stereo is not None:
        boxes += full_box(
            b"st3d", bytes([{"mono": 0, "top and bottom": 1, "side by side": 2}[spatial.stereo]])
        )
    if spatial.projection is not None:
        pose = struct.pack(">3i", *(angle << 16 for angle in (spatial.yaw, spatial.pitch, spatial.roll)))
        shape = (
            full_box(b"equi", bytes(16))
            if spatial.projection == "equirectangular"
            else full_box(b"cbmp", struct.pack(">2I", 0, spatial.padding))
        )
        projection = box_bytes(b"proj", full_box(b"prhd", pose) + shape)
        boxes += box_bytes(b"sv3d", full_box(b"svhd", b"\0") + projection)
    return boxes


def tag_spatial(part: Path, spatial: Spatial) -> Sequence[str]:
    """Write the tags; returns warnings if the file cannot hold them."""
    try:
        write_spatial(part, spatial)
    except ValueError as error:
        log.warning("spatial_tags_left_out", detail=str(error))
        return spatial_left_out(part, spatial)
    return ()


def spatial_left_out(_part: Path, spatial: Spatial) -> Sequence[str]:
    """Warnings for a file that cannot hold the tags."""
    held = {SPHERICAL_WARNING: spatial.projection, STEREO_WARNING: spatial.stereo}
    return [warning for warning, value in held.items() if value is not None]
