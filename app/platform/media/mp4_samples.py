"""Reads where the samples of an MP4 file are, and when they are shown (ISO/IEC 14496-12), without a process.

For files that ffmpeg wrote for this server: one sample description for each track, no fragments.
"""

import struct
import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise, repeat

from app.platform.errors import FfmpegError
from app.platform.media.mp4_boxes import HEADER_BYTES, LONG_HEADER_BYTES

# Read at once from the start of a file: the whole of a short file's tables, or where the others are.
HEAD_BYTES = 64 * 1024
# Of a film of a day, tables take 40 MB.
MOST_TABLE_BYTES = 256 * 1024**2
# More than any storage holds in one object.
MOST_FILE_BYTES = 2**48
# Bytes of a full box's version and flags.
VERSION = 4

ReadBytes = Callable[[int, int | None], bytes]
"""Bytes of a file: from an offset on, so many, or up to its end."""


@dataclass(frozen=True, kw_only=True)
class Track:
    """A track's samples in the order of decoding.

    `handler`: `vide` or `soun`. `timescale`: ticks per second. `header`: the content of its track header box;
    `description`: the whole box of its sample descriptions. Of each sample: `sizes` in bytes, `offsets` in bytes of the
    file, and `times`, when it is shown, in ticks from the start that the edit list says. `sync`: the numbers of those
    from which decoding may start, from 0; None: all of them. `end`: when the last one ends.
    """

    handler: bytes
    timescale: int
    header: bytes
    description: bytes
    sizes: Sequence[int]
    offsets: Sequence[int]
    times: Sequence[int]
    sync: Sequence[int] | None
    end: int


def read_tracks(read: ReadBytes) -> list[Track]:
    """The video and sound tracks of a file. Raises FfmpegError for what this server's ffmpeg does not write."""
    movie = _find_movie(read)
    boxes = list(_boxes(movie))
    movie_timescale = next((_header_timescale(content) for kind, content in boxes if kind == b"mvhd"), 0)
    tracks = [_read_track(content, movie_timescale) for kind, content in boxes if kind == b"trak"]
    return [track for track in tracks if track is not None]


def _find_movie(read: ReadBytes) -> memoryview:
    head, at = read(0, HEAD_BYTES), 0
    while at + LONG_HEADER_BYTES <= len(head):
        kind, start, end = _box_at(memoryview(head), at)
        if kind == b"moov":
            _check_size(end - start)
            inside = head[start:end] if end <= len(head) else read(start, end - start)
            return memoryview(inside)
        at = end
    # After the samples, at the end of the file.
    if at >= MOST_FILE_BYTES:
        raise _unexpected("a box that makes no sense")
    rest = memoryview(read(at, None))
    for kind, content in _boxes(rest):
        if kind == b"moov":
            _check_size(len(content))
            return content
    raise _unexpected("no moov")


def _check_size(count: int) -> None:
    if count > MOST_TABLE_BYTES:
        raise _unexpected(f"tables of {count:,} bytes")


def _box_at(data: memoryview, at: int) -> tuple[bytes, int, int]:
    """Its kind, and where its content starts and ends."""
    size, kind = struct.unpack_from(">I4s", data, at)
    start = at + HEADER_BYTES
    if size == 1:
        (size,) = struct.unpack_from(">Q", data, start)
        start = at + LONG_HEADER_BYTES
    if at + size < start:
        raise _unexpected(f"a box of {size} bytes")
    return kind, start, at + size


def _boxes(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    at = 0
    while at + HEADER_BYTES <= len(data):
        kind, start, end = _box_at(data, at)
        yield kind, data[start:end]
        at = end


def _read_track(data: memoryview, movie_timescale: int) -> Track | None:
    boxes = dict(_boxes(data))
    media = dict(_boxes(boxes[b"mdia"]))
    handler = bytes(media[b"hdlr"][8:12])
    if handler not in (b"vide", b"soun"):
        return None
    timescale = _header_timescale(media[b"mdhd"])
    tables = dict(_boxes(dict(_boxes(media[b"minf"]))[b"stbl"]))
    sizes = _sizes(tables[b"stsz"])
    durations = list(chain.from_iterable(repeat(ticks, count) for count, ticks in _pairs(tables[b"stts"])))
    if len(durations) != len(sizes) or not sizes:
        raise _unexpected(f"{len(sizes)} samples with {len(durations)} durations")
    *decoded, end = accumulate(durations, initial=0)
    times = decoded
    if b"ctts" in tables:
        delays = chain.from_iterable(repeat(delay, count) for count, delay in _pairs(tables[b"ctts"], "i"))
        times = [time + delay for time, delay in zip(decoded, delays, strict=True)]
    shift = _shift(boxes.get(b"edts"), timescale=timescale, movie_timescale=movie_timescale)
    return Track(
        handler=handler,
        timescale=timescale,
        header=bytes(boxes[b"tkhd"]),
        description=_whole(b"stsd", tables[b"stsd"]),
        sizes=sizes,
        offsets=_offsets(tables, sizes),
        times=array("q", [time + shift for time in times]),
        sync=None if b"stss" not in tables else [number - 1 for number in _numbers(tables[b"stss"], at=8)],
        end=end + shift,
    )


def _header_timescale(header: memoryview) -> int:
    """Of a movie or media header."""
    (timescale,) = struct.unpack_from(">I", header, VERSION + (16 if header[0] else 8))
    return int(timescale)


def _shift(edits: memoryview | None, *, timescale: int, movie_timescale: int) -> int:
    """What an edit list adds to the times of the samples, in the track's ticks: empty edits, less the media's start."""
    content = None if edits is None else dict(_boxes(edits)).get(b"elst")
    if content is None:
        return 0
    (count,) = struct.unpack_from(">I", content, VERSION)
    entry = struct.Struct(">QqI" if content[0] else ">IiI")
    delay = 0
    for duration, media_time, _rate in entry.iter_unpack(content[8 : 8 + count * entry.size]):
        if media_time >= 0:
            return delay - int(media_time)
        delay += round(duration * timescale / movie_timescale)
    return delay


def _sizes(box: memoryview) -> Sequence[int]:
    size, count = struct.unpack_from(">II", box, VERSION)
    return array("I", [size]) * count if size else _numbers(box, at=12)


def _offsets(tables: dict[bytes, memoryview], sizes: Sequence[int]) -> Sequence[int]:
    is_long = b"co64" in tables
    chunks = _numbers(tables[b"co64" if is_long else b"stco"], at=8, code="Q" if is_long else "I")
    words = _numbers(tables[b"stsc"], at=8)
    runs = list(zip(words[::3], words[1::3], strict=True))
    offsets, sample = array("Q"), 0
    for (first, held), (following, _) in pairwise([*runs, (len(chunks) + 1, 0)]):
        for chunk in range(first - 1, following - 1):
            end = sample + held
            offsets.extend(accumulate(sizes[sample : end - 1], initial=chunks[chunk]))
            sample = end
    if len(offsets) != len(sizes):
        raise _unexpected(f"{len(sizes)} samples in {len(offsets)} places")
    return offsets


def _pairs(box: memoryview, second: str = "I") -> Iterator[tuple[int, int]]:
    (count,) = struct.unpack_from(">I", box, VERSION)
    return struct.iter_unpack(f">I{second}", box[8 : 8 + 8 * count])


def _numbers(box: memoryview, *, at: int, code: str = "I") -> "array[int]":
    numbers = array(code)
    whole = (len(box) - at) // numbers.itemsize * numbers.itemsize
    numbers.frombytes(box[at : at + whole])
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers


def _whole(kind: bytes, content: memoryview) -> bytes:
    return struct.pack(">I4s", HEADER_BYTES + len(content), kind) + content


def _unexpected(detail: str) -> FfmpegError:
    return FfmpegError("The stored video is not as expected.", detail=detail)
