"""Memory in large pages: with small ones, a processor that streams through hundreds of megabytes spends a tenth of its
time on finding out where they are.
"""

import mmap
from contextlib import suppress

import torch

_ALIGNMENT_FLOATS = 16


def floats_in_large_pages(count: int) -> torch.Tensor:
    """So many floats, all zero, 1-D; given back to the system with the tensor. Raises MemoryError."""
    try:
        room = mmap.mmap(-1, max(1, count) * 4)
    except OSError as error:
        raise MemoryError(f"{count * 4} bytes") from error
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without them: small pages do as well
            room.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(room, dtype=torch.float32, count=count)


class Room:
    """Such memory that is kept and used again, for the system takes its time to find so much."""

    def __init__(self) -> None:
        self._kept = torch.empty(0)

    def floats(self, count: int) -> torch.Tensor:
        """So many floats, 1-D, holding whatever was left in them; at first zeros. The same memory each time, unless it
        must grow. Raises MemoryError."""
        if self._kept.numel() < count:
            self._kept = torch.empty(0)  # freed before the larger one is made
            self._kept = floats_in_large_pages(count)
        return self._kept[:count]


class Shelf:
    """Hands out pieces of one such memory, which lives as long as any of them."""

    def __init__(self, count: int) -> None:
        self._room = floats_in_large_pages(count)
        self._taken = 0

    def take(self, count: int) -> torch.Tensor:
        """The next so many floats, from the start of a cache line on. Raises ValueError when that is too many."""
        piece = self._room[self._taken : self._taken + count]
        if piece.numel() < count:
            raise ValueError(f"{count} floats of {self._room.numel() - self._taken}")
        self._taken += space_for(count)
        return piece


def space_for(count: int) -> int:
    """What a piece of so many floats takes of a shelf."""
    return -(-count // _ALIGNMENT_FLOATS) * _ALIGNMENT_FLOATS
