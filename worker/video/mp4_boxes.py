"""Reads the boxes of MP4 files (ISO/IEC 14496-12), without a process for each file."""

import contextlib
import os
import struct
from collections.abc import Iterable, Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from app.platform.errors import FfmpegError
from app.platform.media.mp4_boxes import HEADER_BYTES, MOST_BOXES, Box, read_box

# Of a sample description before its first entry, and of a visual entry before the boxes in it, with its own header.
ENTRIES_START, VISUAL_ENTRY_BYTES = 8, 86
# Within a media header: where the time scale is, by the header's version.
TIMESCALE_START = {0: 12, 1: 20}
# How the codes of ProRes begin.
PRORES = b"ap"
# `glbl`: of codecs for which QuickTime has no box of their own.
CODEC_CONFIGURATIONS = (b"avcC", b"hvcC", b"av1C", b"vpcC", b"glbl")
# Boxes that contain boxes, on the way to the sample description and to the tables of samples.
CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
# Bytes of a full box's version and flags (ISO/IEC 14496-12, 4.2).
VERSION = 4
# Where a handler box names the kind of its track.
HANDLER_START = 8


def find_boxes(file: BinaryIO, start: int, end: int, *kinds: bytes) -> Iterator[tuple[int, int]]:
    """Where the contents of the boxes of these kinds start and end. Raises what `walk_boxes` raises."""
    return ((box.start, box.end) for box in walk_boxes(file, start, end) if box.kind in kinds)


def walk_boxes(file: BinaryIO, start: int, end: int) -> Iterator[Box]:
    """The boxes from `start` to `end`, where the last one ends too. Raises FfmpegError for what no muxer writes."""
    for _ in range(MOST_BOXES):
        if start + HEADER_BYTES > end:
            return
        box = read_box(file, start)
        if box.end < box.start:
            raise _unexpected(f"box of {box.end - start} bytes at {start}")
        yield Box(box.kind, box.start, min(box.end, end))
        start = box.end
    raise _unexpected(f"more than {MOST_BOXES} boxes")


def read_bytes(file: BinaryIO, at: int, count: int) -> bytes:
    file.seek(at)
    return file.read(count)


def box_bytes(kind: bytes, content: bytes, *, is_full: bool = False) -> bytes:
    """A box; if it is a full one, of version 0 and without flags."""
    content = bytes(VERSION) + content if is_full else content
    return struct.pack(">I4s", HEADER_BYTES + len(content), kind) + content


def read_video_coding(path: Path) -> tuple[int, bytes]:
    """The first track's ticks per second, and its codec's parameter sets as the file stores them.

    Raises FfmpegError if the file is not what ffmpeg writes.
    """

    def inner(file: BinaryIO, place: tuple[int, int], *kinds: bytes) -> tuple[int, int]:
        found = next(find_boxes(file, *place, *kinds), None)
        if found is None:
            raise _unexpected(f"no {kinds[0].decode()} in {path.name}")
        return found

    with path.open("rb") as file:
        start, end = inner(file, (0, os.fstat(file.fileno()).st_size), b"moov")
        # In memory: each look at a file takes two calls of the system.
        movie = BytesIO(read_bytes(file, start, end - start))
    find = partial(inner, movie)
    media = find(find((0, end - start), b"trak"), b"mdia")
    header, _ = find(media, b"mdhd")
    version = read_bytes(movie, header, 1)[0]
    timescale = int.from_bytes(read_bytes(movie, header + TIMESCALE_START[version], 4))
    entries, end = find(find(find(media, b"minf"), b"stbl"), b"stsd")
    within = (entries + ENTRIES_START + VISUAL_ENTRY_BYTES, end)
    if read_bytes(movie, entries + ENTRIES_START + 4, 2) == PRORES:
        # Its frames describe themselves.
        return timescale, read_bytes(movie, entries + ENTRIES_START + 4, 4)
    start, end = find(within, *CODEC_CONFIGURATIONS)
    return timescale, read_bytes(movie, start, end - start)


def read_video_description_kinds(path: Path) -> set[bytes]:
    """The kinds of boxes in the sample descriptions of the video tracks of any file; none unless it is an MP4."""
    kinds: set[bytes] = set()
    with path.open("rb") as file, contextlib.suppress(FfmpegError):

        def inner(places: Iterable[tuple[int, int]], kind: bytes) -> Iterator[tuple[int, int]]:
            return (found for place in places for found in find_boxes(file, *place, kind))

        for media in inner(inner(inner([(0, path.stat().st_size)], b"moov"), b"trak"), b"mdia"):
            handlers = [read_bytes(file, at + HANDLER_START, 4) for at, _ in inner([media], b"hdlr")]
            if handlers != [b"vide"]:
                continue
            for entries, _end in inner(inner(inner([media], b"minf"), b"stbl"), b"stsd"):
                entry = read_box(file, entries + ENTRIES_START)
                boxes = walk_boxes(file, entries + ENTRIES_START + VISUAL_ENTRY_BYTES, entry.end)
                kinds |= {box.kind for box in boxes}
    return kinds


def _unexpected(detail: str) -> FfmpegError:
    return FfmpegError("The written file is not as expected.", detail=detail)
