"""Frames in batches of a size that the device's memory allows."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from worker.inference.frames import Frame
from worker.inference.memory import is_out_of_memory

Result = TypeVar("Result")


def run_in_batches(
    frames: Sequence[Frame],
    *,
    size: int,
    start: Callable[[Sequence[Frame]], Callable[[], list[Result]]],
    shrink: Callable[[int], int],
) -> list[Result]:
    """Returns one result per frame, in order.

    `start` begins a batch of at most `size` frames; while its results are copied back, the next batch is computed.
    A batch that runs out of memory is tried again after `shrink`, which gets its length, makes the next attempt
    smaller and returns the new size of batches. What `shrink` raises, and every other error, passes through.
    """
    results: list[Result] = []
    started = 0
    pending: Callable[[], list[Result]] | None = None
    while started < len(frames) or pending is not None:
        batch = frames[started : started + size]
        following: Callable[[], list[Result]] | None = None
        if batch:
            try:
                following = start(batch)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
        if pending is not None:
            results.extend(pending())
        pending = following
        if following is not None:
            started += len(batch)
        elif batch:
            # Here, not in the handler, where the error's traceback still holds the tensors.
            size = shrink(len(batch))
    return results
