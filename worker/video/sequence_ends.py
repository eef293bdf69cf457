"""Keeps the frame that ffmpeg's decoders of MPEG-1, MPEG-2 and MPEG-4 Part 2 hold back where a video's shape changes.

The decoder delivers a frame when it has the next one, and drops it where a sequence header (ISO/IEC 13818-2, 6.2.2.1)
states another shape: size, aspect ratio, or fields. It delivers the frame at the end of a sequence; so a copy of such a
file ends each sequence before the next begins. That of MPEG-4 (ISO/IEC 14496-2) knows no such end, but delivers the
frame when it has any other that is not a B-frame; so a copy repeats one, which is dropped in its place.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import IO

import ffmpeg
import numpy as np
from numpy.typing import NDArray

from app.platform.errors import Canceled
from app.platform.media.ffmpeg import FfmpegRunner

CHUNK_BYTES = 1024 * 1024
HEADER_BYTES = 18
PACKET_BYTES = 188
PACKETS_PER_CHUNK = CHUNK_BYTES // PACKET_BYTES
# The first identifier that ffmpeg's muxer gives to a stream.
VIDEO_PID = 0x100
_PID_BITS, _STARTS_UNIT, _HAS_ADAPTATION, _COUNTER_BITS = 0x1FFF, 0x40, 0x20, 0x0F
# Width and height of 12 bits each, then the aspect ratio of 4 and the frame rate of 4, at which nothing is dropped; of
# an extension that follows at once, whether the sequence is progressive: some heights are rounded by that.
_HEADER = re.compile(rb"\x00\x00\x01\xb3(...)(.)....(?:\x00\x00\x01\xb5[\x10-\x1f](.))?", re.DOTALL)
_PROGRESSIVE_BIT = 0x08
# The first end belongs to the frame before it; the decoder looks for one by itself.
_ENDS = b"\0\0\1\xb7" * 2
# The header of a video object layer, whose size stands up to 24 bytes within, and that of a frame with its kind.
LAYER_BYTES = 28
_LAYER = re.compile(rb"\x00\x00\x01[\x20-\x2f](.{24})", re.DOTALL)
_FRAME = re.compile(rb"\x00\x00\x01\xb6(.)", re.DOTALL)
_PREDICTED, _BIDIRECTIONAL = 1, 2
_EXTENDED_ASPECT, _IS_RECTANGULAR = 15, 0
# Of a frame that may be repeated.
MOST_PACKETS = 20_000


def changes_shape(
    runner: FfmpegRunner, path: Path, *, stream_index: int, is_mpeg4: bool, cancelled: Callable[[], bool]
) -> bool:
    """Whether the headers of a video in MPEG-1, MPEG-2 or MPEG-4 Part 2 differ in shape, from one demuxing.

    Raises Canceled, and what FfmpegProcess.wait raises.
    """
    stream = ffmpeg.output(runner.input(path)[str(stream_index)], "pipe:1", f="data", codec="copy")
    shapes: set[bytes | None] = set()
    pattern, length, shape_of = (
        (_LAYER, LAYER_BYTES, layer_shape) if is_mpeg4 else (_HEADER, HEADER_BYTES, _shape)
    )
    rest = b""
    with runner.start(stream, purpose="reading the video", stdin=False, stdout=True) as process:
        while len(shapes) < 2 and (piece := process.stdout.read(CHUNK_BYTES)):
            if cancelled():
                raise Canceled()
            data = rest + piece
            last = len(data) - length
            found = {shape_of(header) for header in pattern.finditer(data) if header.start() <= last}
            shapes |= found - {None}
            rest = data[1 - length :]
        if len(shapes) < 2:
            process.wait()
    return len(shapes) > 1


def end_sequences(stream: IO[bytes], *, has_sequences: bool) -> Iterator[bytes]:
    """The transport stream, as ffmpeg's muxer writes it with the video first, with the ends of its sequences.

    `stream.read` returns as many bytes as asked for, but at the end. `has_sequences`: the video is in MPEG-1 or MPEG-2.
    """
    shape: bytes | None = None
    added = 0
    while piece := stream.read(PACKETS_PER_CHUNK * PACKET_BYTES):
        # The rest after the last whole packet was cut off, which the process reports.
        whole = bytearray(piece[: len(piece) - len(piece) % PACKET_BYTES])
        packets = np.frombuffer(whole, np.uint8).reshape(-1, PACKET_BYTES)
        of_video = (packets[:, 1:3].astype(np.int32) @ (256, 1) & _PID_BITS) == VIDEO_PID
        starts = np.flatnonzero(of_video & (packets[:, 1] & _STARTS_UNIT > 0)) if has_sequences else ()
        done = 0
        for at in map(int, starts):
            if (header := _HEADER.match(_first_bytes(packets[at]))) is None:
                continue
            if shape not in (None, _shape(header)):
                yield _numbered(packets[done:at], of_video[done:at], added)
                yield _packet(_ENDS, number=int(packets[at, 3]) + added)
                done = at
                added += 1
            shape = _shape(header)
        yield _numbered(packets[done:], of_video[done:], added)


def repeat_references(stream: IO[bytes]) -> Iterator[bytes]:
    """The transport stream, as ffmpeg's muxer writes it with a video in MPEG-4 Part 2 first.

    Where the size changes after B-frames, the last frame that is predicted from earlier ones alone is repeated, with
    the timestamps of the last one.
    """
    shape: bytes | None = None
    added = 0
    has_bidirectional = is_repeatable = False
    repeatable: list[NDArray[np.uint8]] = []
    last_header = b""
    while piece := stream.read(PACKETS_PER_CHUNK * PACKET_BYTES):
        whole = bytearray(piece[: len(piece) - len(piece) % PACKET_BYTES])
        packets = np.frombuffer(whole, np.uint8).reshape(-1, PACKET_BYTES)
        of_video = (packets[:, 1:3].astype(np.int32) @ (256, 1) & _PID_BITS) == VIDEO_PID
        starts = {*map(int, np.flatnonzero(of_video & (packets[:, 1] & _STARTS_UNIT > 0)))}
        done = 0
        for at, until in pairwise([*sorted({0, *starts}), len(packets)]):
            if at in starts:
                first = _first_bytes(packets[at])
                layer = _LAYER.search(first)
                found = None if layer is None else layer_shape(layer)
                if found is not None:
                    if shape not in (None, found):
                        if has_bidirectional and repeatable:
                            yield _numbered(packets[done:at], of_video[done:at], added)
                            again = _unit(last_header, repeatable, number=int(packets[at, 3]) + added)
                            yield again
                            done, added = at, added + len(again) // PACKET_BYTES
                        has_bidirectional, repeatable = False, []
                    shape = found
                frame = _FRAME.search(first)
                kind = None if frame is None else frame[1][0] >> 6
                has_bidirectional = has_bidirectional or kind == _BIDIRECTIONAL
                is_repeatable = kind == _PREDICTED
                repeatable = [] if is_repeatable else repeatable
                last_header = _unit_header(packets[at])
            if is_repeatable:
                repeatable += [packet.copy() for packet in packets[at:until][of_video[at:until]]]
                if len(repeatable) > MOST_PACKETS:
                    is_repeatable, repeatable = False, []
        yield _numbered(packets[done:], of_video[done:], added)


def layer_shape(header: re.Match[bytes]) -> bytes | None:
    """Width and height of a video object layer (ISO/IEC 14496-2, 6.2.3); None if it has no rectangular shape."""
    bits = "".join(f"{byte:08b}" for byte in header[1])
    at = 9

    def read(count: int) -> int:
        nonlocal at
        at += count
        return int(bits[at - count : at], 2)

    if read(1):
        read(7)
    if read(4) == _EXTENDED_ASPECT:
        read(16)
    if read(1):
        read(3)
        if read(1):
            read(79)
    if read(2) != _IS_RECTANGULAR:
        return None
    read(1)
    resolution = read(16)
    read(1)
    if read(1):
        read(max(1, (resolution - 1).bit_length()))
    return bytes(bits[at : at + 28], "ascii")


def _shape(header: re.Match[bytes]) -> bytes:
    extension = header[3] or b"\0"
    return header[1] + bytes([header[2][0] >> 4, extension[0] & _PROGRESSIVE_BIT])


def _content(packet: NDArray[np.uint8]) -> bytes:
    data = packet.tobytes()
    return data[4 + (1 + data[4] if data[3] & _HAS_ADAPTATION else 0) :]


def _unit_header(packet: NDArray[np.uint8]) -> bytes:
    """The header of the elementary stream's unit that begins in this packet."""
    content = _content(packet)
    return content[: 9 + content[8]] if len(content) > 8 else b""


def _first_bytes(packet: NDArray[np.uint8]) -> bytes:
    """The part of a frame in its first packet, after the headers of packet and elementary stream."""
    header = _unit_header(packet)
    return _content(packet)[len(header) :] if header else b""


def _unit(header: bytes, packets: Sequence[NDArray[np.uint8]], *, number: int) -> bytes:
    """The frame of these packets with another header, in packets numbered from `number` on."""
    first, *others = packets
    content = header + _first_bytes(first) + b"".join(map(_content, others))
    unit = bytearray()
    for at in range(0, len(content), PACKET_BYTES - 4):
        part = content[at : at + PACKET_BYTES - 4]
        unit += _packet(part, number=number + len(unit) // PACKET_BYTES, starts_unit=at == 0)
    return bytes(unit)


def _packet(content: bytes, *, number: int, starts_unit: bool = False) -> bytes:
    """A packet of the video, with stuffing."""
    missing = PACKET_BYTES - 4 - len(content)
    # Its length, flags, and the rest.
    stuffing = (bytes([missing - 1, 0])[:missing] + b"\xff" * (missing - 2)) if missing else b""
    marks = (_HAS_ADAPTATION if missing else 0) | 0x10 | number & _COUNTER_BITS
    return (
        bytes([0x47, VIDEO_PID >> 8 | _STARTS_UNIT * starts_unit, VIDEO_PID & 0xFF, marks])
        + stuffing
        + content
    )


def _numbered(packets: NDArray[np.uint8], of_video: NDArray[np.bool_], added: int) -> bytes:
    """The packets, those of the video numbered on from as many as were added."""
    flags = packets[of_video, 3]
    numbers = flags + np.uint8(added % 16) & _COUNTER_BITS
    packets[of_video, 3] = flags - (flags & _COUNTER_BITS) + numbers
    return packets.tobytes()
