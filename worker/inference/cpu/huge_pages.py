"""Memory in huge pages: with small pages, a processor that streams through hundreds of megabytes spends a tenth of its
time on address translation.
"""

import mmap
from contextlib import suppress

import torch

_ALIGNMENT_FLOATS = 16


def allocate_in_huge_pages(count: int) -> torch.Tensor:
    """Returns so many floats, all zero, 1-D; freed with the tensor. Raises MemoryError."""
    try:
        memory = mmap.mmap(-1, max(1, count) * 4)
    except OSError as error:
        raise MemoryError(f"{count * 4} bytes") from error
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a system without huge pages: small ones do as well
            memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.float32, count=count)


class GrowingBuffer:
    """One such buffer, kept between calls: allocating it takes the system as long as filling it."""

    def __init__(self) -> None:
        self._kept = torch.empty(0)

    def floats(self, count: int) -> torch.Tensor:
        """Returns so many floats, 1-D, with their previous content, at first zeros. It is the same memory each time
        unless it must grow. Raises MemoryError."""
        if self._kept.numel() < count:
            self._kept = torch.empty(0)  # freed before the larger one is allocated
            self._kept = allocate_in_huge_pages(count)
        return self._kept[:count]


class Arena:
    """Hands out pieces of one such buffer, which lives as long as any of them."""

    def __init__(self, count: int) -> None:
        self._memory = allocate_in_huge_pages(count)
        self._taken = 0

    def take(self, count: int) -> torch.Tensor:
        """Returns the next so many floats, aligned to a cache line. Raises ValueError if too few are left."""
        piece = self._memory[self._taken : self._taken + count]
        if piece.numel() < count:
            raise ValueError(f"{count} floats of {self._memory.numel() - self._taken}")
        self._taken += aligned_floats(count)
        return piece


def aligned_floats(count: int) -> int:
    """Returns how many floats of an arena a piece of so many floats takes."""
    return -(-count // _ALIGNMENT_FLOATS) * _ALIGNMENT_FLOATS
