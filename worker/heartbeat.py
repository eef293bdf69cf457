"""The heartbeat of one unit of work: it renews the lease and reports progress while the work goes on."""

import threading
from contextvars import copy_context
from types import TracebackType
from typing import Any, Protocol, Self

import structlog

from app.platform.errors import RegenError
from worker.metrics import HEARTBEAT_FAILURES

# Often enough that a progress bar moves.
LONGEST_INTERVAL_SECONDS = 2.0

log = structlog.get_logger(__name__)


class Ledger(Protocol):
    """Where a claim's lease is written down. `renew` returns False when the work is no longer the claim's."""

    lease_seconds: float

    def renew(self, claim: Any, *, frames_done: int) -> bool: ...


class Heartbeat:
    """A thread that renews a claim's lease at least three times in its length, from entry to exit.

    `frames_done` is what it reports. `lost` becomes true once the database says that the work belongs to
    somebody else, or its render has ended. A database that is away is asked again; it decides, not the clock.
    Its log lines carry what is bound where it is made.
    """

    def __init__(self, ledger: Ledger, claim: object) -> None:
        self.frames_done = 0
        self._ledger = ledger
        self._claim = claim
        self._interval_seconds = min(ledger.lease_seconds / 3, LONGEST_INTERVAL_SECONDS)
        self._lost = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._beat,), name="heartbeat", daemon=True
        )

    @property
    def lost(self) -> bool:
        return self._lost.is_set()

    def end(self) -> None:
        """The work is reported: there is nothing to renew any more."""
        self._ended.set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._ended.wait(self._interval_seconds):
            try:
                if not self._ledger.renew(self._claim, frames_done=self.frames_done):
                    log.warning("lease_lost")
                    self._lost.set()
                    return
            except RegenError as error:
                HEARTBEAT_FAILURES.inc()
                log.warning("heartbeat_failed", error=error.message, detail=error.detail)
            except Exception:
                # A defect must not end the heartbeat: the lease would run out under work that goes well.
                HEARTBEAT_FAILURES.inc()
                log.exception("heartbeat_failed")
