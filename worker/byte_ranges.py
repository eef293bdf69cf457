"""Ranges of a file's bytes, as (start, stop) with `stop` exclusive."""

from collections.abc import Iterable, Iterator
from typing import TypeAlias

ByteRange: TypeAlias = tuple[int, int]


def merged(ranges: Iterable[ByteRange], *, gap: int = 0) -> list[ByteRange]:
    """The ranges in order, each pair at most `gap` bytes apart as one."""
    found: list[ByteRange] = []
    for start, stop in sorted(ranges):
        if found and start <= found[-1][1] + gap:
            found[-1] = (found[-1][0], max(found[-1][1], stop))
        elif start < stop:
            found.append((start, stop))
    return found


def without(ranges: Iterable[ByteRange], present: Iterable[ByteRange]) -> list[ByteRange]:
    """What of the ranges is not in those present."""
    missing = []
    there = merged(present)
    for start, stop in merged(ranges):
        at = start
        for known_start, known_stop in there:
            if at < known_stop and known_start < stop:
                missing.append((at, known_start))
                at = known_stop
        missing.append((at, stop))
    return [(start, stop) for start, stop in missing if start < stop]


def pieces(ranges: Iterable[ByteRange], *, most_bytes: int) -> Iterator[ByteRange]:
    """The ranges, cut into such of at most `most_bytes`."""
    for start, stop in ranges:
        for at in range(start, stop, most_bytes):
            yield at, min(stop, at + most_bytes)


def size_of(ranges: Iterable[ByteRange]) -> int:
    """How many bytes are in ranges that do not overlap."""
    return sum(stop - start for start, stop in ranges)
