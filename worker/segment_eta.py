"""How long the rest of a segment takes."""

import time


class SegmentEta:
    """Estimates the time left from the speed so far. One thread reports, any thread reads."""

    def __init__(self, *, frames: int) -> None:
        self._frames = frames
        self._first: tuple[float, int] | None = None
        self._seconds_left = 0.0
        self.is_known = False

    @property
    def seconds_left(self) -> float:
        """The time for the frames left, at the speed so far; 0 while that is unknown."""
        return self._seconds_left

    def progress(self, frames_done: int) -> None:
        """Reports the number of frames done."""
        now = time.monotonic()
        if self._first is None:
            self._first = now, frames_done
            return
        first_at, first_frames = self._first
        if frames_done > first_frames:
            self.is_known = True
            self._seconds_left = (
                (self._frames - frames_done) * (now - first_at) / (frames_done - first_frames)
            )
