"""The sweeper: gives back the work of workers that are gone, and wakes workers for work that is ready."""

import random
import threading
import time
from collections import Counter
from contextvars import copy_context

import structlog
from celery import Celery

from app.platform.errors import RegenError, Unavailable
from app.platform.queue import MOST_WAKE_UPS, waiting_messages, wake_workers
from app.work.ledger import WorkLedger
from app.work.queries import ReadyUnits
from worker.metrics import LEASES_EXPIRED, SWEEP_FAILURES

LONGEST_INTERVAL_SECONDS = 5.0
# A round is due a little before its worker comes again, so that one worker alone never misses every second one.
CHORE_SHARE = 0.75

log = structlog.get_logger(__name__)


class Sweeper:
    """A thread of every worker. One of them all sweeps in each interval, whoever comes first; any number of them may
    sweep at once, for each move is a compare-and-set.

    It also sends the wake-ups for what its own worker made ready, so that a broker that is away holds up no work.
    """

    def __init__(self, *, ledger: WorkLedger, celery: Celery) -> None:
        self._ledger = ledger
        self._celery = celery
        self._interval_seconds = min(ledger.lease_seconds / 3, LONGEST_INTERVAL_SECONDS)
        self._database_was_away = False
        self._trust_leases_at = 0.0
        self._lock = threading.Lock()
        self._announced: ReadyUnits = Counter()
        self._poked = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._run,), name="sweeper", daemon=True
        )

    def start(self) -> None:
        # An outage that this worker has not seen may be the reason why leases have run out.
        self._trust_leases_at = time.monotonic() + self._interval_seconds
        self._thread.start()

    def stop(self) -> None:
        """Returns once the last wake-ups are sent, or given up. Also when it was never started."""
        self._ended.set()
        self._poked.set()
        if self._thread.is_alive():
            self._thread.join()

    def announce(self, ready: ReadyUnits) -> None:
        """Have workers woken for these units soon. Returns at once."""
        with self._lock:
            self._announced += ready
        self._poked.set()

    def sweep(self) -> None:
        """One round, for the work of every queue. Raises Unavailable when database or broker is away.

        While the database was away no lease could be renewed. Afterwards nobody's is held against them before they
        have had as long as a lease to tell that they live.
        """
        try:
            if time.monotonic() >= self._trust_leases_at and not self._database_was_away:
                for claim in self._ledger.give_back_expired():
                    LEASES_EXPIRED.labels(claim.kind.value).inc()
            ready = self._ledger.ready_units()
        except Unavailable:
            self._database_was_away = True
            raise
        self._note_database_is_there()
        for queue, units in ready.items():
            if units:
                missing = min(units, MOST_WAKE_UPS) - waiting_messages(self._celery, queue)
                if missing > 0:
                    wake_workers(self._celery, queue, units=missing)

    def _is_due(self) -> bool:
        """Whether this round is this worker's, and not that of another one."""
        try:
            is_due = self._ledger.take_sweep(every_seconds=self._interval_seconds * CHORE_SHARE)
        except Unavailable:
            self._database_was_away = True
            raise
        self._note_database_is_there()
        return is_due

    def _note_database_is_there(self) -> None:
        if self._database_was_away:
            self._database_was_away = False
            self._trust_leases_at = time.monotonic() + self._ledger.lease_seconds

    def _run(self) -> None:
        sweep_at = time.monotonic()
        while not self._ended.is_set():
            if time.monotonic() >= sweep_at:
                self._sweep_safely()
                # Not all of them at the same moment, nor the same one first each time.
                sweep_at = time.monotonic() + self._interval_seconds * random.uniform(0.8, 1.0)  # noqa: S311
            self._poked.wait(max(0.0, sweep_at - time.monotonic()))
            self._poked.clear()
            self._send_announced()

    def _sweep_safely(self) -> None:
        try:
            if self._is_due():
                self._sweep_or_leave_it()
        except RegenError as error:
            SWEEP_FAILURES.inc()
            log.warning("sweep_failed", error=error.message, detail=error.detail)
        except Exception:
            # A defect in one round must not end all further ones.
            SWEEP_FAILURES.inc()
            log.exception("sweep_failed")

    def _sweep_or_leave_it(self) -> None:
        try:
            self.sweep()
        except Exception:
            # Perhaps another worker gets at the broker.
            self._ledger.leave_sweep()
            raise

    def _send_announced(self) -> None:
        with self._lock:
            ready, self._announced = self._announced, Counter()
        for queue, units in ready.items():
            if units:
                wake_workers(self._celery, queue, units=units)
