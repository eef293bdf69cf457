"""How long the rest of a segment takes."""

import math
import time

# Results of a batch are reported within this share of the time that it took: they are one step of the pace.
BURST_SHARE = 0.1


class SegmentEta:
    """Estimates the time left from the speed so far. One thread reports, any thread reads."""

    def __init__(self, *, frames: int) -> None:
        self._frames = frames
        self._made_at = time.monotonic()
        self._first: tuple[float, int] | None = None
        self._seconds_left = math.inf

    @property
    def seconds_left(self) -> float:
        """The time for the frames left, at the speed so far; infinite before the first one, when giving the segment
        back loses nothing yet."""
        return self._seconds_left

    def progress(self, frames_done: int, *, since: float | None = None) -> None:
        """Reports the number of frames done. `since`: when the first was begun, if later than this was made."""
        now = time.monotonic()
        began_at = self._made_at if since is None else since
        if self._first is None or now - self._first[0] <= BURST_SHARE * (self._first[0] - began_at):
            self._first = now if self._first is None else self._first[0], frames_done
            # What came before the first frame is counted too, until there is a second step.
            pace = (self._first[0] - began_at) / max(1, frames_done)
        else:
            first_at, first_frames = self._first
            pace = (now - first_at) / max(1, frames_done - first_frames)
        self._seconds_left = (self._frames - frames_done) * pace
