"""How a worker ends: the work in hand is finished while there is time for it, else given back."""

import math
import time


class Drain:
    """What a worker has been asked for. Takes no lock: a signal handler may interrupt whoever reads it."""

    def __init__(self, *, grace_seconds: float) -> None:
        self._grace_seconds = grace_seconds
        self._over_at = math.inf

    def request(self, *, at_once: bool = False) -> None:
        """Have the worker end: after `grace_seconds` at the latest, or, `at_once` or asked again, without them."""
        at_once = at_once or self.requested
        self._over_at = min(self._over_at, time.monotonic() + (0.0 if at_once else self._grace_seconds))

    @property
    def requested(self) -> bool:
        """No new work is begun."""
        return self._over_at != math.inf

    @property
    def seconds_left(self) -> float:
        """For the work in hand; infinite while nobody wants the worker to end."""
        return self._over_at - time.monotonic()

    @property
    def is_over(self) -> bool:
        """What is still in hand is to be given back."""
        return self.seconds_left <= 0


class Pace:
    """How fast a segment goes. Told by one thread, read by any."""

    def __init__(self, *, frames: int) -> None:
        self._frames = frames
        self._first: tuple[float, int] | None = None
        self._seconds_left = 0.0

    @property
    def seconds_left(self) -> float:
        """What the frames that are left will take, at the speed so far; 0 while that is unknown."""
        return self._seconds_left

    def progress(self, frames_done: int) -> None:
        """So many frames are done."""
        now = time.monotonic()
        if self._first is None:
            self._first = now, frames_done
            return
        began_at, before = self._first
        if frames_done > before:
            self._seconds_left = (self._frames - frames_done) * (now - began_at) / (frames_done - before)
