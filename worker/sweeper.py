"""The sweeper: gives back work whose lease has expired, and wakes workers for work that is ready."""

import random
import threading
import time
from collections import Counter

import structlog
from celery import Celery

from app.platform.errors import RegenError, Unavailable
from app.platform.progress import Progress
from app.platform.queue import MOST_WAKE_UPS, waiting_messages, wake_workers
from app.platform.threads import background_thread
from app.work.ledger import WorkLedger
from app.work.queries import ReadyUnits
from worker.metrics import LEASES_EXPIRED, SWEEP_FAILURES

LONGEST_INTERVAL_SECONDS = 5.0
# The next sweep is due a little before the interval ends: a single worker must not miss every second sweep.
DUE_SHARE = 0.75

log = structlog.get_logger(__name__)


class Sweeper:
    """A thread of every worker. In each interval the first one to ask sweeps for all. Concurrent sweeps are safe: each
    move is a compare-and-set.

    It also sends the wake-ups for units that its own worker made ready, so that an unreachable broker delays no work.
    """

    def __init__(self, *, ledger: WorkLedger, celery: Celery) -> None:
        self._ledger = ledger
        self._celery = celery
        self._interval_seconds = min(ledger.lease_seconds / 3, LONGEST_INTERVAL_SECONDS)
        self._had_outage = False
        self._trust_leases_at = 0.0
        self.progress = Progress()
        self._lock = threading.Lock()
        self._announced: ReadyUnits = Counter()
        self._woken = threading.Event()
        self._ended = threading.Event()
        self._thread = background_thread(self._run, name="sweeper")

    def start(self) -> None:
        # Leases may have expired in an outage that ended before this worker started.
        self._trust_leases_at = time.monotonic() + self._interval_seconds
        self._thread.start()

    def stop(self) -> None:
        """Returns once the last wake-ups are sent or dropped. Does nothing when the thread was never started."""
        self._ended.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join()

    def announce(self, ready: ReadyUnits) -> None:
        """Wakes workers for these units soon. Returns at once."""
        with self._lock:
            self._announced += ready
        self._woken.set()

    def sweep(self) -> None:
        """Sweeps once, for all queues. Raises Unavailable when the database or the broker is unreachable.

        No lease can be renewed while the database is away. After an outage no lease counts as expired for the length of
        a lease, so that workers have time to renew theirs.
        """
        try:
            if time.monotonic() >= self._trust_leases_at and not self._had_outage:
                for claim in self._ledger.give_back_expired():
                    LEASES_EXPIRED.labels(claim.kind.value).inc()
            self._ledger.cancel_overdue()
            ready = self._ledger.ready_units()
        except Unavailable:
            self._had_outage = True
            raise
        self._note_database_reached()
        for queue, units in ready.items():
            if units:
                missing = min(units, MOST_WAKE_UPS) - waiting_messages(self._celery, queue)
                if missing > 0:
                    wake_workers(self._celery, queue, units=missing)

    def _is_due(self) -> bool:
        """Whether this worker should sweep now."""
        try:
            is_due = self._ledger.take_sweep(every_seconds=self._interval_seconds * DUE_SHARE)
        except Unavailable:
            self._had_outage = True
            raise
        self._note_database_reached()
        return is_due

    def _note_database_reached(self) -> None:
        if self._had_outage:
            self._had_outage = False
            self._trust_leases_at = time.monotonic() + self._ledger.lease_seconds

    def _run(self) -> None:
        sweep_at = time.monotonic()
        while not self._ended.is_set():
            self.progress.beat()
            if time.monotonic() >= sweep_at:
                self._sweep_safely()
                # Spread, so that workers do not ask at the same moment, nor always in the same order.
                sweep_at = time.monotonic() + self._interval_seconds * random.uniform(0.8, 1.0)  # noqa: S311
            self._woken.wait(max(0.0, sweep_at - time.monotonic()))
            self._woken.clear()
            self._send_announced()
        # What was announced while others were sent.
        self._send_announced()

    def _sweep_safely(self) -> None:
        try:
            if self._is_due():
                self._sweep_or_pass_on()
        except RegenError as error:
            SWEEP_FAILURES.inc()
            log.warning("sweep_failed", error=error.message, detail=error.detail)
        except Exception:
            # A defect must not end the thread.
            SWEEP_FAILURES.inc()
            log.exception("sweep_failed")

    def _sweep_or_pass_on(self) -> None:
        try:
            self.sweep()
        except Exception:
            # Another worker may reach the broker.
            self._ledger.leave_sweep()
            raise

    def _send_announced(self) -> None:
        with self._lock:
            ready, self._announced = self._announced, Counter()
        for queue, units in ready.items():
            if units:
                wake_workers(self._celery, queue, units=units)
