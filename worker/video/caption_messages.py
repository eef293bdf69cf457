"""Puts closed captions into coded pictures of H.264 and HEVC: SEI messages with registered user data (ATSC A/53).

Captions are triples of bytes, as CTA-708 calls them `cc_data`: their kind and whether they are valid, and two bytes of
CEA-608 or CEA-708. A picture of the output has those of the input's pictures to whose times it is nearest.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice, pairwise
from math import inf
from pathlib import Path

from app.platform.errors import Canceled, FfmpegError
from app.platform.media.containers import VideoCodec
from app.platform.progress import current_progress
from worker.video.picture_rewrite import rewrite_pictures
from worker.video.plan import RenderPlan, SegmentPlan

# Ticks per second of captions' times: of FLV.
CLOCK = 1000
TRIPLE = 3
# A message's count of triples has five bits.
MOST_BYTES = 31 * TRIPLE
# In a triple's first byte: whether it is valid, and whether it is of CEA-708 (CTA-708, 4.3).
VALID, CEA_708 = 4, 2
LENGTH_BYTES = 4
H264_SEI, HEVC_PREFIX_SEI = 6, 39
REGISTERED_USER_DATA = 4
# Country and provider by ITU-T T.35, then ATSC's identifier and its type of user data (A/53 part 4, 6.2.3).
ATSC_CAPTIONS = b"\xb5\x00\x31GA94\x03"
# Reserved bits and the flag that triples follow, before their count.
COUNT_FLAGS = 0xC0
STOP_BIT = b"\x80"
# Two zeros may not precede these: such bytes would look like the start of a unit (ITU-T H.264, 7.4.1).
_START_CODE = re.compile(rb"\0\0(?=[\0-\3])")

TimedTriples = tuple[int, bytes]


def keep_in_pictures(
    captions: Iterable[TimedTriples],
    files: Sequence[Path],
    directory: Path,
    *,
    render: RenderPlan,
    segments: Sequence[SegmentPlan],
    cancelled: Callable[[], bool],
) -> list[Path]:
    """Write to `directory` those of the segments' files that have captions in them; returns all, in order.

    `captions`: the input's, as `place` takes them. Raises FfmpegError if a file is not what ffmpeg writes.
    """
    ticks = (
        render.offset_ticks + segment.start_tick + tick
        for segment in segments
        for tick in segment.output_ticks()
    )
    placed = place(captions, ticks, timescale=render.timescale)
    kept = []
    for file, segment in zip(files, segments, strict=True):
        if cancelled():
            raise Canceled()
        triples = list(islice(placed, segment.output_frames))
        kept.append(file)
        if any(triples):
            kept[-1] = directory / f"captioned-{segment.index}{file.suffix}"
            rewrite_pictures(file, kept[-1], triples, partial(with_captions, codec=render.codec))
        current_progress().beat()
    return kept


def place(captions: Iterable[TimedTriples], ticks: Iterable[int], *, timescale: int) -> Iterator[bytes]:
    """The triples of each output frame, whose times are `ticks` of `timescale` a second.

    `captions`: times in ticks of CLOCK, ascending, each with its triples. A frame has as many as one message holds,
    and the rest goes to the next one. Where frames are too few for that, those that are not valid are left out, and
    if that does not suffice a frame has more.
    """
    remaining = iter(captions)
    time, triples = next(remaining, (0, b""))
    waiting = b""
    for tick, following in pairwise(chain(ticks, (inf,))):
        while triples and 2 * time * timescale <= (tick + following) * CLOCK:
            waiting += triples
            time, triples = next(remaining, (0, b""))
        if len(waiting) > 2 * MOST_BYTES:
            waiting = b"".join(one for one in split(waiting) if one[0] & VALID)
        has_room_later = following != inf and len(waiting) <= 2 * MOST_BYTES
        size = MOST_BYTES if has_room_later else len(waiting)
        yield waiting[:size]
        waiting = waiting[size:]


def split(data: bytes, size: int = TRIPLE) -> Iterator[bytes]:
    """Pieces of `size` bytes."""
    return (data[at : at + size] for at in range(0, len(data), size))


def with_captions(picture: bytes, triples: bytes, *, codec: VideoCodec) -> bytes:
    """The picture, whose units follow their lengths, with messages before its first slice."""
    at = 0
    while triples and at + LENGTH_BYTES < len(picture):
        start = at + LENGTH_BYTES
        if (header := _message_header(picture[start : start + 2], codec)) is not None:
            units = (header + _message(some) for some in split(triples, MOST_BYTES))
            messages = b"".join(len(unit).to_bytes(LENGTH_BYTES) + unit for unit in units)
            return picture[:at] + messages + picture[at:]
        at = start + int.from_bytes(picture[at:start])
    if triples:
        raise FfmpegError("The written file is not as expected.", detail="a picture without slices")
    return picture


def _message_header(unit: bytes, codec: VideoCodec) -> bytes | None:
    """If a slice's unit begins so, the header of messages to it."""
    if codec == "h264":
        return bytes([H264_SEI]) if 1 <= unit[0] & 31 <= 5 else None
    return bytes([HEVC_PREFIX_SEI << 1, unit[1]]) if unit[0] >> 1 & 63 < 32 else None


def _message(triples: bytes) -> bytes:
    count = len(triples) // TRIPLE
    content = ATSC_CAPTIONS + bytes([COUNT_FLAGS | count, 0xFF]) + triples + b"\xff"
    message = bytes([REGISTERED_USER_DATA, len(content)]) + content + STOP_BIT
    return _START_CODE.sub(b"\0\0\3", message)
