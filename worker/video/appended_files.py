"""Recognizes files to which another one was appended (`cat a.mp4 b.mp4`): of some formats ffmpeg reads the first alone,
silently.

Those formats are chains of parts that state their sizes: ISO/IEC 14496-12; Adobe Flash Video File Format Specification
10.1, annex E; Advanced Systems Format Specification, 2; Portable Network Graphics Specification, 5.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from app.platform.media.mp4_boxes import HEADER_BYTES, LONG_HEADER_BYTES

# Enough for any part's size.
READ_BYTES = 24
# An FLV film of some hours. Files of tiny parts would take minutes.
MOST_PARTS = 3_000_000
APPENDED_WARNING = (
    "Another file was appended to this one; the first alone was upscaled. "
    "Join such files with a tool that knows them."
)
FLV_TAG_KINDS = (8, 9, 18)
FLV_HEADER_BYTES, FLV_TAG_HEADER_BYTES, FLV_TAG_SIZE_BYTES = 9, 11, 4
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# The length, the kind and the checksum of a chunk.
PNG_CHUNK_BYTES = 12


def _box_bytes(header: bytes) -> int:
    """0 for a fragment as well: an index after fragments may go on with them, and is passed over."""
    size = int.from_bytes(header[:4], "big")
    if size == 1:
        return max(LONG_HEADER_BYTES, int.from_bytes(header[8:16], "big"))
    return 0 if header[4:8] == b"moof" or size < HEADER_BYTES else size


def _tag_bytes(header: bytes) -> int:
    if header.startswith(b"FLV"):
        return max(FLV_HEADER_BYTES, int.from_bytes(header[5:9], "big")) + FLV_TAG_SIZE_BYTES
    # Bit 5 marks an encrypted tag.
    if header[0] & 0x1F not in FLV_TAG_KINDS:
        return 0
    return FLV_TAG_HEADER_BYTES + int.from_bytes(header[1:4], "big") + FLV_TAG_SIZE_BYTES


def _object_bytes(header: bytes) -> int:
    return int.from_bytes(header[16:24], "little")


def _chunk_bytes(header: bytes) -> int:
    if header.startswith(PNG_SIGNATURE):
        return len(PNG_SIGNATURE)
    return PNG_CHUNK_BYTES + int.from_bytes(header[:4], "big")


@dataclass(frozen=True)
class _Chain:
    """A format. `signature`: what a file begins with, after `at` bytes. `part_bytes`: the size of the part that begins
    with these bytes; 0 if there is no saying.
    """

    signature: bytes
    at: int
    part_bytes: Callable[[bytes], int]

    def begins(self, header: bytes) -> bool:
        return header[self.at :].startswith(self.signature)


CHAINS = (
    _Chain(b"ftyp", 4, _box_bytes),
    _Chain(b"FLV", 0, _tag_bytes),
    _Chain(bytes.fromhex("3026B2758E66CF11A6D900AA0062CE6C"), 0, _object_bytes),
    _Chain(PNG_SIGNATURE, 0, _chunk_bytes),
)


def has_appended_file(path: Path) -> bool:
    """Whether another file of the same format begins where a part of this one ends."""
    with path.open("rb") as file:
        header = file.read(READ_BYTES)
        chain = next((one for one in CHAINS if one.begins(header)), None)
        if chain is None:
            return False
        at = 0
        for _ in range(MOST_PARTS):
            size = chain.part_bytes(header)
            if size == 0:
                return False
            at += size
            file.seek(at)
            header = file.read(READ_BYTES)
            if len(header) < FLV_TAG_HEADER_BYTES:
                return False
            if chain.begins(header):
                return True
    return False
