"""Finds Opus in transport streams whose channels change, as in joined recordings: ffmpeg reads its description once.

A program's table describes each of its streams (ISO/IEC 13818-1, 2.4.4.8); the descriptor of Opus gives its channels.
"""

import re
from pathlib import Path

CHUNK_BYTES = 1024 * 1024
# A stream of private data, its number, and among its descriptors that of Opus.
_STREAM = re.compile(rb"\x06([\xe0-\xff].)[\xf0-\xff].(?:.{0,32}?)Opus\x7f\x02\x80(.)", re.DOTALL)
_LONGEST_BYTES = 64
OPUS_CHANGES = (
    "The channels of Opus sound change on the way; it was kept in its first layout, in which others are mixed "
    "or not heard."
)


def opus_warnings(path: Path) -> list[str]:
    """A warning if a track of Opus in the transport stream is described with several numbers of channels."""
    layouts: dict[bytes, bytes] = {}
    before = b""
    with path.open("rb", buffering=0) as file:
        while piece := file.read(CHUNK_BYTES):
            for stream, layout in _STREAM.findall(before + piece):
                if layouts.setdefault(stream, layout) != layout:
                    return [OPUS_CHANGES]
            before = piece[-_LONGEST_BYTES:]
    return []
