"""The end of a worker: it finishes its work in hand within a grace period, otherwise gives it back."""

import math
import time


class Drain:
    """Whether the worker must end, and how soon. Takes no lock, because a signal handler may interrupt its
    readers."""

    def __init__(self, *, grace_seconds: float) -> None:
        self.grace_seconds = grace_seconds
        self.over_at = math.inf
        """When the work in hand must be given back, by the monotonic clock; infinite before the first request."""

    def request(self, *, at_once: bool = False) -> None:
        """Ends the worker after `grace_seconds` at the latest; `at_once`, or at a second request, without grace."""
        at_once = at_once or self.requested
        self.over_at = min(self.over_at, time.monotonic() + (0.0 if at_once else self.grace_seconds))

    @property
    def requested(self) -> bool:
        """Whether the worker begins no new work."""
        return self.over_at != math.inf

    @property
    def seconds_left(self) -> float:
        """The time left for the work in hand; infinite before the first request."""
        return self.over_at - time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether the work in hand must be given back."""
        return self.seconds_left <= 0
