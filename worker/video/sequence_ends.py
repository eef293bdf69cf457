"""Keeps the frame that ffmpeg's decoder of MPEG-1 and MPEG-2 holds back where a video's size or shape changes.

The decoder delivers a frame when it has the next one, and drops it where a sequence header (ISO/IEC 13818-2, 6.2.2.1)
states another shape: size, aspect ratio, or fields. It delivers the frame at the end of a sequence; so a copy of such a
file ends each sequence before the next begins.
"""

import re
from collections.abc import Callable, Iterator
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


def changes_shape(
    runner: FfmpegRunner, path: Path, *, stream_index: int, cancelled: Callable[[], bool]
) -> bool:
    """Whether the sequence headers of a video in MPEG-1 or MPEG-2 differ in shape, from one demuxing.

    Raises Canceled, and what FfmpegProcess.wait raises.
    """
    stream = ffmpeg.output(runner.input(path)[str(stream_index)], "pipe:1", f="data", codec="copy")
    shapes: set[bytes] = set()
    rest = b""
    with runner.start(stream, purpose="reading the video", stdin=False, stdout=True) as process:
        while len(shapes) < 2 and (piece := process.stdout.read(CHUNK_BYTES)):
            if cancelled():
                raise Canceled()
            data = rest + piece
            last = len(data) - HEADER_BYTES
            shapes.update(_shape(header) for header in _HEADER.finditer(data) if header.start() <= last)
            rest = data[1 - HEADER_BYTES :]
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
                yield _end(int(packets[at, 3]) + added)
                done = at
                added += 1
            shape = _shape(header)
        yield _numbered(packets[done:], of_video[done:], added)


def _shape(header: re.Match[bytes]) -> bytes:
    extension = header[3] or b"\0"
    return header[1] + bytes([header[2][0] >> 4, extension[0] & _PROGRESSIVE_BIT])


def _first_bytes(packet: NDArray[np.uint8]) -> bytes:
    """The part of a frame in its first packet, after the headers of packet and elementary stream."""
    data = packet.tobytes()
    start = 4 + (1 + data[4] if data[3] & _HAS_ADAPTATION else 0)
    return data[start + 9 + data[start + 8] :] if start + 8 < PACKET_BYTES else b""


def _numbered(packets: NDArray[np.uint8], of_video: NDArray[np.bool_], added: int) -> bytes:
    """The packets, those of the video numbered on from as many as were added."""
    flags = packets[of_video, 3]
    numbers = flags + np.uint8(added % 16) & _COUNTER_BITS
    packets[of_video, 3] = flags - (flags & _COUNTER_BITS) + numbers
    return packets.tobytes()


def _end(number: int) -> bytes:
    """A packet that continues the frame before it: a header, stuffing, and the ends."""
    stuffing = PACKET_BYTES - 4 - 2 - len(_ENDS)
    header = bytes([0x47, VIDEO_PID >> 8, VIDEO_PID & 0xFF, 0x30 | number & _COUNTER_BITS, stuffing + 1, 0])
    return header + b"\xff" * stuffing + _ENDS
