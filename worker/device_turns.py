"""The order in which one worker's segments in hand compute on its device: that of their claims."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

POLL_SECONDS = 0.1
# How long before a segment's end the next one is claimed: as long as the last one took to its first decoded
# frame, and half as long again, within these bounds. Earlier would keep it from idle workers.
SHORTEST_LEAD_SECONDS, LONGEST_LEAD_SECONDS = 1.0, 10.0
LEAD_FACTOR = 1.5


class ComputingTurn(Protocol):
    """When this segment may use the upscaler, which another one may still need."""

    def wait(self, on_wait: Callable[[], None]) -> None:
        """Returns when it may. Calls `on_wait` several times a second, which may raise."""

    def end(self) -> None:
        """Called when it needs the upscaler no more."""


class AtOnce:
    """The turn of a segment beside which no other is in hand."""

    def wait(self, on_wait: Callable[[], None]) -> None:
        pass

    def end(self) -> None:
        pass


class DeviceTurn:
    """One segment's turn: from its first frame through the network to its last.

    `began_at` and `ended_at` are on the monotonic clock, None before. `ready_at` is the time from which the
    worker waited only for this segment: its claim, or the end of the previous turn.
    """

    def __init__(self, turns: "DeviceTurns") -> None:
        self._turns = turns
        self._queued_at = self.ready_at = time.monotonic()
        self.began_at: float | None = None
        self.ended_at: float | None = None

    @property
    def is_ahead(self) -> bool:
        """Whether another segment's turn comes first."""
        return self._turns.first is not self

    @property
    def seconds(self) -> float:
        """The worker's time that the segment took, without what overlapped with others."""
        return (self.ended_at or time.monotonic()) - self.ready_at

    @property
    def waited_seconds(self) -> float:
        """Of these, how long the device waited for the segment's first frame."""
        return (self.began_at or time.monotonic()) - self.ready_at

    def wait(self, on_wait: Callable[[], None]) -> None:
        """Begins the turn once all before have ended. Calls `on_wait` several times a second, which may raise."""
        if self.began_at is None:
            self._turns.note_opening(time.monotonic() - self._queued_at)
            self._turns.wait_for(self, on_wait)

    def end(self) -> None:
        """Lets the next segment compute. Does nothing the second time."""
        self._turns.end(self)


class DeviceTurns:
    """The turns of one worker, in the order of `queued`."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queue: tuple[DeviceTurn, ...] = ()
        self._freed_at = 0.0
        self.lead_seconds = SHORTEST_LEAD_SECONDS
        """How long before a segment's end the next one should be claimed."""

    @property
    def first(self) -> DeviceTurn | None:
        return self._queue[0] if self._queue else None

    @contextmanager
    def queued(self) -> Iterator[DeviceTurn]:
        """A turn after those that were queued before, which ends with the block at the latest."""
        turn = DeviceTurn(self)
        with self._changed:
            self._queue = (*self._queue, turn)
        try:
            yield turn
        finally:
            self.end(turn)

    def note_opening(self, seconds: float) -> None:
        """Record how long a segment took from its claim to its first decoded frame."""
        self.lead_seconds = min(max(LEAD_FACTOR * seconds, SHORTEST_LEAD_SECONDS), LONGEST_LEAD_SECONDS)

    def wait_for(self, turn: DeviceTurn, on_wait: Callable[[], None]) -> None:
        """See DeviceTurn.wait."""
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: self.first is turn, timeout=POLL_SECONDS):
                    break
            on_wait()
        turn.began_at = time.monotonic()
        turn.ready_at = max(turn.ready_at, self._freed_at)

    def end(self, turn: DeviceTurn) -> None:
        """See DeviceTurn.end."""
        with self._changed:
            if turn in self._queue:
                turn.ended_at = self._freed_at = time.monotonic()
                self._queue = tuple(other for other in self._queue if other is not turn)
                self._changed.notify_all()
