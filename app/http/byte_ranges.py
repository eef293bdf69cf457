"""HTTP byte ranges (RFC 9110, section 14)."""

import re
from dataclasses import dataclass

_RANGE = re.compile(r"bytes[ \t]*=[ \t]*(\d{0,20})-(\d{0,20})[ \t]*", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, kw_only=True)
class ByteRange:
    """`length` bytes from `offset` on."""

    offset: int
    length: int

    def content_range(self, size_bytes: int) -> str:
        return f"bytes {self.offset}-{self.offset + self.length - 1}/{size_bytes}"


class RangeNotSatisfiable(ValueError):
    """The range lies wholly outside of the object."""


def parse_range(header: str | None, *, size_bytes: int) -> ByteRange | None:
    """The one range that a Range header asks for, None where the whole is to be sent.

    The whole is the right answer to no header, to one that is malformed, and, since a server may ignore Range, to one
    that asks for several ranges. Raises RangeNotSatisfiable.
    """
    found = _RANGE.fullmatch(header.strip()) if header else None
    if found is None or found[1] == found[2] == "":
        return None
    if found[1] == "":
        offset = max(0, size_bytes - int(found[2]))
        end = size_bytes
    else:
        offset = int(found[1])
        end = min(size_bytes, int(found[2]) + 1) if found[2] else size_bytes
        if found[2] and int(found[2]) < offset:
            return None
    if offset >= end:
        raise RangeNotSatisfiable
    return ByteRange(offset=offset, length=end - offset)
