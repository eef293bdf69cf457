"""The sweeper: gives back the work of workers that are gone, and wakes workers for work that nobody announced."""

import threading

import structlog
from celery import Celery

from app.core.errors import RegenError
from app.core.queue import waiting_messages, wake_workers
from app.core.services.work import WorkLedger

LONGEST_INTERVAL_SECONDS = 5.0
MOST_WAKE_UPS = 100

log = structlog.get_logger(__name__)


class Sweeper:
    """A thread of every worker. Any number of them may sweep at once: each move is a compare-and-set."""

    def __init__(self, *, ledger: WorkLedger, celery: Celery) -> None:
        self._ledger = ledger
        self._celery = celery
        self._interval_seconds = min(ledger.lease_seconds / 3, LONGEST_INTERVAL_SECONDS)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Also when it was never started."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def sweep(self) -> None:
        """One round. Raises Unavailable when database or broker is away."""
        self._ledger.give_back_expired()
        unannounced = self._ledger.ready_units()
        if unannounced:
            unannounced -= waiting_messages(self._celery)
        if unannounced > 0:
            wake_workers(self._celery, units=min(unannounced, MOST_WAKE_UPS))

    def _run(self) -> None:
        while True:
            try:
                self.sweep()
            except RegenError as error:
                log.warning("sweep_failed", error=error.message, detail=error.detail)
            except Exception:
                # A defect in one round must not end all further ones.
                log.exception("sweep_failed")
            if self._ended.wait(self._interval_seconds):
                return
