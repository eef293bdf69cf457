"""Which bytes of an input the decoding of a segment reads, where the container's own index tells it.

ffmpeg opens an MP4 or a Matroska file by reading its head, its index, which is at the start or the end, and its first
packets. Then it goes to the keyframe and reads on from there. In other formats it searches for the place, and reads
wherever it guesses.

These are predictions. They cost no correctness: the bytes around the ranges are zeros, and a segment whose frames are
not exactly the planned ones is decoded again from the whole file.
"""

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from app.platform.byte_sizes import MIB
from app.platform.media.mp4_boxes import HEADER_BYTES, MOST_BOXES, read_box
from worker.byte_ranges import ByteRange, merged, size_of

# Of a smaller file the whole is fetched as fast, and so is one of which a segment reads this share or more.
LEAST_BYTES = 32 * MIB
MOST_SHARE = 1 / 2
# ffmpeg examines at most so many bytes of packets when it opens a file (`probesize`), and one packet more.
OPENING_BYTES = 5_000_000 + MIB
# Ranges closer to each other are fetched by one request.
LEAST_GAP_BYTES = MIB
# What a block of Matroska has beside its packet is less.
LONGEST_HEADER_BYTES = 1024
# Packets after the segment's last one until the decoder has delivered the next frame, which ends the reading (ITU-T
# H.264, max_num_reorder_frames).
PACKETS_AFTER = 16

NOWHERE = -1
MATROSKA_START = b"\x1a\x45\xdf\xa3"
_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675
_CUES_ID = b"\x1c\x53\xbb\x6b"
_LONGEST_ID, _LONGEST_SIZE = 4, 8


@dataclass(frozen=True, kw_only=True)
class InputRanges:
    """The bytes to fetch of a file of `size_bytes`, in order and apart from each other."""

    size_bytes: int
    ranges: tuple[ByteRange, ...]


@dataclass(frozen=True, kw_only=True)
class PacketPlaces:
    """Where the packets of a video stream are in the file, in its order. `times`: their pts. `starts`: NOWHERE where
    the demuxer does not say it.
    """

    times: "array[int]" = field(default_factory=lambda: array("q"))
    starts: "array[int]" = field(default_factory=lambda: array("q"))
    sizes: "array[int]" = field(default_factory=lambda: array("q"))

    def add(self, pts: int, *, start: int, size: int) -> None:
        self.times.append(pts)
        self.starts.append(start)
        self.sizes.append(size)

    def as_fields(self) -> Self:
        """With times in ticks of half the length."""
        return replace(self, times=array("q", (2 * at for at in self.times)))


@dataclass(frozen=True, kw_only=True)
class RangeFinder:
    """Finds the ranges of segments of one file.

    `common`: what each segment needs. `times`, `starts`, `stops`: of the packets, in the file's order. `earliest_left`:
    for each packet, the smallest pts of it and those after it. `groups`: where Matroska's clusters or the fragments of
    an MP4 start, which are read from their start on, without a gap; else empty.
    """

    size_bytes: int
    common: Sequence[ByteRange]
    times: NDArray[np.int64]
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    earliest_left: NDArray[np.int64]
    groups: Sequence[int]

    def of_segment(self, *, keyframe_pts: int | None, last_pts: int) -> InputRanges | None:
        """For decoding from the keyframe, or from the file's start, to the frame at `last_pts`; None if the whole file
        is as good.
        """
        first = 0
        if keyframe_pts is not None:
            (found,) = np.nonzero(self.times == keyframe_pts)
            if not len(found):
                return None
            first = int(found[0])
        stop = bisect_right(self.earliest_left, last_pts) + PACKETS_AFTER
        starts, stops = self.starts[first:stop], self.stops[first:stop]
        if self.groups:
            group = bisect_right(self.groups, int(starts.min())) - 1
            own = [
                (self.groups[max(0, group)], min(self.size_bytes, int(stops.max()) + LONGEST_HEADER_BYTES))
            ]
        else:
            own = merged(zip(starts.tolist(), stops.tolist(), strict=True), gap=LEAST_GAP_BYTES)
        ranges = merged([*self.common, *own], gap=LEAST_GAP_BYTES)
        if size_of(ranges) >= MOST_SHARE * self.size_bytes:
            return None
        return InputRanges(size_bytes=self.size_bytes, ranges=tuple(ranges))


def range_finder(path: Path, places: PacketPlaces) -> RangeFinder | None:
    """None for a file that is small, or whose reading cannot be predicted."""
    size_bytes = path.stat().st_size
    if size_bytes < LEAST_BYTES or not places.starts or min(places.starts) == NOWHERE:
        return None
    times, starts, sizes = (np.asarray(one, np.int64) for one in (places.times, places.starts, places.sizes))
    stops = np.minimum(starts + sizes, size_bytes)  # a file that is cut off ends within a packet
    first = int(starts.min())
    with path.open("rb") as file:
        is_matroska = file.read(len(MATROSKA_START)) == MATROSKA_START
        groups = (_clusters if is_matroska else _fragments)(file, size_bytes)
    if groups is None:
        return None
    return RangeFinder(
        size_bytes=size_bytes,
        common=((0, min(size_bytes, first + OPENING_BYTES)), (int(stops.max()), size_bytes)),
        times=times,
        starts=starts,
        stops=stops,
        earliest_left=np.minimum.accumulate(times[::-1])[::-1],
        groups=groups,
    )


def _fragments(file: BinaryIO, size_bytes: int) -> list[int] | None:
    """Where an MP4 file's fragments start; None if it has some and no index: ffmpeg then reads each to open it."""
    found, kinds = list[int](), set[bytes]()
    at = 0
    for _ in range(MOST_BOXES):
        if at + HEADER_BYTES > size_bytes:
            break
        box = read_box(file, at)
        kinds.add(box.kind)
        if box.kind == b"moof":
            found.append(at)
        if box.end < box.start or (found and b"sidx" not in kinds):
            break
        at = box.end
    return found if (b"sidx" if found else b"moov") in kinds else None


def _clusters(file: BinaryIO, size_bytes: int) -> list[int] | None:
    """Where a Matroska file's clusters start; None if it has no index, or the elements' sizes are not known."""
    found: list[int] = []
    at = 0
    for _ in range(MOST_BOXES):
        if at >= size_bytes:
            break
        file.seek(at)
        header = file.read(_LONGEST_ID + _LONGEST_SIZE)
        element, id_bytes = _number(header, most_bytes=_LONGEST_ID, keeps_mark=True)
        length, length_bytes = _number(header[id_bytes:], most_bytes=_LONGEST_SIZE, keeps_mark=False)
        if not id_bytes or not length_bytes:
            return None
        if element == _CLUSTER:
            found.append(at)
        at += id_bytes + length_bytes
        if element != _SEGMENT:
            if length == (1 << 7 * length_bytes) - 1:  # unknown
                return None
            at += length
    else:
        return None
    file.seek(0)
    # If the index is at the end, the head names it.
    return found if found and _CUES_ID in file.read(min(found[0], OPENING_BYTES)) else None


def _number(header: bytes, *, most_bytes: int, keeps_mark: bool) -> tuple[int, int]:
    """A number of EBML (RFC 8794) and how many bytes it has; 0 bytes if there is none."""
    length = 9 - header[0].bit_length() if header else 0
    if not 0 < length <= min(most_bytes, len(header)):
        return 0, 0
    value = int.from_bytes(header[:length])
    return value if keeps_mark else value - (1 << 7 * length), length
