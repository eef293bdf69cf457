"""The heartbeat of one unit of work: renews its lease and reports its progress during the work."""

import math
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol, Self

import structlog

from app.platform.errors import RegenError
from app.platform.progress import Stillness, current_progress
from app.platform.threads import background_thread

# Short enough for a progress bar to move.
LONGEST_INTERVAL_SECONDS = 2.0

log = structlog.get_logger(__name__)


class LeaseRenewal(Protocol):
    """A ledger that holds leases of `lease_seconds`. `renew` returns False when the claim no longer holds its work."""

    lease_seconds: float

    def renew(self, claim: Any, *, frames_done: int) -> bool: ...


class Heartbeat:
    """A thread that renews a claim's lease at least three times within its length, from entry to exit.

    It reports `frames_done`. `lost` becomes true when the database reports that the claim no longer holds its
    work, and when the work has gone without a beat for so long that the lease is left to expire. If the
    database cannot be reached, it asks again: the database decides, not the clock. Log lines have the context
    variables bound where the heartbeat is made.
    """

    def __init__(
        self,
        ledger: LeaseRenewal,
        claim: object,
        *,
        on_failure: Callable[[], None] = lambda: None,
        on_end_soon: Callable[[], None] = lambda: None,
        still_seconds: float = math.inf,
    ) -> None:
        """`on_failure` is called for each renewal that raised. `still_seconds`: how long a lease is renewed
        for work that makes no progress."""
        self.end_soon = on_end_soon
        """Says that the worker may claim its next unit, because this one is nearly done or has made others ready."""
        self.frames_done = 0
        self._ledger = ledger
        self._claim = claim
        self._on_failure = on_failure
        self._stillness = Stillness(current_progress())
        self._still_seconds = still_seconds
        self._interval_seconds = min(ledger.lease_seconds / 3, LONGEST_INTERVAL_SECONDS)
        self._lost = threading.Event()
        self._is_taken = False
        self._ended = threading.Event()
        self._thread = background_thread(self._run, name="heartbeat")

    @property
    def lost(self) -> bool:
        return self._lost.is_set()

    def end(self) -> None:
        """Ends the renewals before the exit: the work is reported."""
        self._ended.set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        # Not if the renewal was refused: work that has just been reported has no lease either.
        if self._is_taken and error is not None:
            log.warning("lease_lost")

    def _run(self) -> None:
        while not self._ended.wait(self._interval_seconds):
            if self._stillness.tick(self._interval_seconds) > self._still_seconds:
                log.error("lease_left_to_expire", seconds=round(self._stillness.seconds))
                self._lost.set()
                return
            try:
                if not self._ledger.renew(self._claim, frames_done=self.frames_done):
                    self._is_taken = True
                    self._lost.set()
                    return
            except RegenError as error:
                self._on_failure()
                log.warning("heartbeat_failed", error=error.message, detail=error.detail)
            except Exception:
                # A defect must not end the heartbeat: the lease of sound work would expire.
                self._on_failure()
                log.exception("heartbeat_failed")
