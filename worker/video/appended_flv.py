"""Recognizes FLV files to which another was appended (`cat a.flv b.flv`): ffmpeg ends where the first does, silently.

Adobe Flash Video File Format Specification 10.1, annex E: a header, then tags, each between the sizes of two tags.
"""

from pathlib import Path

SIGNATURE = b"FLV"
TAG_KINDS = (8, 9, 18)
HEADER_BYTES, TAG_HEADER_BYTES, TAG_SIZE_BYTES = 9, 11, 4
APPENDED_WARNING = (
    "Another FLV file was appended to this one; the first alone was upscaled. "
    "Join such files with a tool that knows them."
)


def has_appended_file(path: Path) -> bool:
    """Whether another FLV file begins where the tags of this one end."""
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
        if not header.startswith(SIGNATURE):
            return False
        at = max(HEADER_BYTES, int.from_bytes(header[5:9], "big")) + TAG_SIZE_BYTES
        while True:
            file.seek(at)
            tag = file.read(TAG_HEADER_BYTES)
            # Bit 5 marks an encrypted tag.
            if len(tag) < TAG_HEADER_BYTES or tag[0] & 0x1F not in TAG_KINDS:
                return tag.startswith(SIGNATURE)
            at += TAG_HEADER_BYTES + int.from_bytes(tag[1:4], "big") + TAG_SIZE_BYTES
