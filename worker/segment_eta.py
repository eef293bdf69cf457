"""The time left for a segment."""

import time
from collections.abc import Callable

# Results of a batch are reported within this share of the time that it took: they are one step of the pace.
BURST_SHARE = 0.1


class SegmentEta:
    """Estimates the time left from the speed so far. One thread reports, any thread reads."""

    def __init__(self, *, frames: int, began_at: Callable[[], float]) -> None:
        """`began_at` returns when work on the first frame began, by the monotonic clock."""
        self._frames = frames
        self._began_at = began_at
        self._first: tuple[float, int] | None = None
        self._seconds_left: float | None = None

    @property
    def seconds_left(self) -> float:
        """The time for the frames left, at the speed so far; before the first frame, as if it were done now."""
        if self._seconds_left is None:
            return self._frames * (time.monotonic() - self._began_at())
        return self._seconds_left

    def progress(self, frames_done: int) -> None:
        """Reports the number of frames done."""
        now, began_at = time.monotonic(), self._began_at()
        if self._first is None or now - self._first[0] <= BURST_SHARE * (self._first[0] - began_at):
            self._first = now if self._first is None else self._first[0], frames_done
            # The time before the first frame counts too, until there is a second step.
            pace = (self._first[0] - began_at) / max(1, frames_done)
        else:
            first_at, first_frames = self._first
            pace = (now - first_at) / max(1, frames_done - first_frames)
        self._seconds_left = (self._frames - frames_done) * pace
