"""The work loop: claims units of work and runs them until there are none, one after the other or overlapping:
a worker claims its next segment when the present one is nearly done. The worker runs the loop with units that
use the networks, the mock with units that use ffmpeg's scaler.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from typing import Self, TypeAlias

import structlog

from app.platform.errors import (
    Canceled,
    ConfigurationError,
    LeaseLost,
    LeftToOthers,
    PermanentError,
    PipelineStalled,
    RegenError,
)
from app.platform.progress import current_progress
from app.platform.retry_policies import WORKER_OUTAGE, RetryRow
from app.platform.tracing import traced
from app.platform.work_kinds import WorkKind
from app.work.drain import Drain
from app.work.heartbeat import Heartbeat
from app.work.ledger import WorkLedger
from app.work.outage_retry import OutageRetry, is_outage
from app.work.queries import Claim, Job, ReadyUnits
from app.work.units_in_hand import POLL_SECONDS, UnitInHand, UnitsInHand

Cancelled: TypeAlias = Callable[[], bool]
# Does the work of a job, changes its row, and returns the units of work that this made ready. Reports its
# frames to the heartbeat, and raises soon after it is cancelled.
WorkUnit: TypeAlias = Callable[[Job, Heartbeat, Cancelled], ReadyUnits]

ASK_AGAIN_SECONDS = 1.0

log = structlog.get_logger(__name__)


class UnitOutcome(StrEnum):
    """The outcome of a unit of work in one worker."""

    DONE = "done"
    FAILED = "failed"
    """The attempt counts as a failure."""
    POSTPONED = "postponed"
    """An outage: the unit goes back uncharged and rests."""
    GIVEN_BACK = "given_back"
    """The worker stops, or the unit is for others: it goes back uncharged."""
    LEASE_LOST = "lease_lost"
    """The unit belongs to another worker, or its render has ended: nothing is reported."""

    @classmethod
    def of_error(cls, error: Exception, *, is_draining: bool) -> Self:
        """The outcome of a unit that raised `error`."""
        if is_draining or isinstance(error, LeftToOthers):
            # Whatever the error: the signal that stops a worker may have stopped its ffmpeg as well.
            return cls.GIVEN_BACK
        if isinstance(error, LeaseLost | Canceled):
            return cls.LEASE_LOST
        return cls.POSTPONED if is_outage(error) else cls.FAILED


class WorkObserver:
    """Observes the units of a work loop. This base class does nothing."""

    def unit(self, claim: Claim) -> AbstractContextManager[None]:
        """Returns a context that encloses the unit and its report."""
        return nullcontext()

    def unit_ended(self, claim: Claim, outcome: UnitOutcome) -> None:
        """Called once for each unit, before its report."""

    def quarantined(self, reason: str) -> None:
        """Called when the ledger blames the worker for its last failures: the worker must claim nothing."""

    def heartbeat_failed(self) -> None:
        """Called from the heartbeat's thread when a heartbeat does not reach the database."""


class WorkLoop:
    """Runs units of work until none can be claimed or the worker drains."""

    def __init__(
        self,
        *,
        ledger: WorkLedger,
        units: Mapping[WorkKind, WorkUnit],
        drain: Drain,
        outage_retry: OutageRetry,
        wake: Callable[[ReadyUnits], None],
        stop: Callable[[], None],
        observer: WorkObserver | None = None,
        claim: Callable[[Collection[WorkKind]], Job | None] | None = None,
        is_well: Callable[[], bool] = lambda: False,
        still_seconds: float = math.inf,
        most_in_hand: int = 1,
    ) -> None:
        """`wake` announces units that became ready, without waiting for the broker. `stop` ends the process when this
        machine is configured so that it can do no work. `outage_retry` repeats reports while the database is away.
        `claim` replaces the ledger's own choice of the next unit of these kinds. `is_well` says after an outage
        whether this machine has all that work needs. No lease is renewed for longer than `still_seconds` without
        progress. Of segments that end soon (`Heartbeat.end_soon`) up to `most_in_hand` overlap, one of them claimed
        ahead; where that is more than one, units of other kinds go on beside them.
        """
        self._ledger = ledger
        self._units = units
        self._drain = drain
        self._outage_retry = outage_retry
        self._wake = wake
        self._stop = stop
        self._observer = observer or WorkObserver()
        self._claim = claim or ledger.claim
        self._is_well = is_well
        self._still_seconds = still_seconds
        self._outages_in_a_row = RetryRow(WORKER_OUTAGE)
        self._in_hand = UnitsInHand(most=most_in_hand)
        self._rest_seconds = 0.0
        self._is_refused = False

    def __call__(self) -> None:
        """Never raises. An error ends the loop until the sweeper's next message restarts it, so it cannot spin."""
        self._is_refused = False
        try:
            self._work_through()
        except RegenError as error:
            log.warning("claim_failed", error=error.message, detail=error.detail)
        except Exception:
            log.exception("claim_failed")
        self._in_hand.wait_for_all()
        if self._drain.requested:
            # This worker took a message that another worker can use, and may have given work back.
            self._wake(Counter(self._ledger.queues))

    def give_back(self, is_hanging: bool) -> None:
        """Releases the units in hand because the process is about to end.

        If it hangs, the unit that has stalled for longest counts as failed. For a thread other than the
        loop's, which does not return.
        """
        for unit in self._in_hand.units:
            if is_hanging:
                is_hanging = False
                self._ledger.failed(unit.job, PipelineStalled("The work on the video stalled."))
            else:
                self._ledger.hand_back(unit.job)

    def _work_through(self) -> None:
        while not (self._drain.requested or self._is_refused):
            if not self._in_hand:
                # Else its units beat, and one that hangs must not look alive because the worker asks for more.
                current_progress().beat()
            changes, free = self._in_hand.changes, self._in_hand.free_kinds
            if not free:
                self._in_hand.wait_for_change(since=changes)
                continue
            if self._rest_seconds:
                seconds, self._rest_seconds = self._rest_seconds, 0.0
                self._rest(seconds)
                continue
            job = self._claim(free)
            if job is not None:
                self._in_hand.begin(job, self._work_on)
            elif not self._in_hand and self._in_hand.changes == changes:
                log.debug("nothing_to_do")
                return
            else:
                # No message tells a worker in the middle of other units that there is something for its idle device, or
                # another user's render to prepare beside a long segment.
                self._in_hand.wait_for_change(since=changes, seconds=ASK_AGAIN_SECONDS)

    def _work_on(self, unit: UnitInHand) -> None:
        job = unit.job
        fields = {
            "kind": job.kind.value,
            "render_id": job.render_id,
            "segment_id": job.segment_id,
            "attempt": job.attempt,
            "request_id": job.request_id,
        }
        known = {name: value for name, value in fields.items() if value is not None}
        try:
            is_reported = self._work_and_report(unit, known)
        except Exception:
            log.exception("claim_failed")
            is_reported = False
        self._is_refused = self._is_refused or not is_reported

    def _work_and_report(self, unit: UnitInHand, fields: Mapping[str, object]) -> bool:
        """Returns whether to continue: False if the database did not accept the report."""
        job = unit.job
        with (
            structlog.contextvars.bound_contextvars(**fields),
            traced(job.kind.value, parent=job.trace_parent, attributes=fields),
            self._observer.unit(job),
        ):
            log.info("work_started")
            self._wake(job.opened)
            try:
                ready = self._run(unit)
            except Exception as error:
                return self._report(job, error)
            self._outages_in_a_row.reset()
            self._observer.unit_ended(job, UnitOutcome.DONE)
            log.info("work_done")
            self._wake(ready)
            return True

    def _run(self, unit: UnitInHand) -> ReadyUnits:
        job = unit.job
        with Heartbeat(
            self._ledger,
            job,
            on_end_soon=lambda: self._in_hand.end_soon(unit),
            on_failure=self._observer.heartbeat_failed,
            still_seconds=self._still_seconds,
        ) as heartbeat:
            try:
                return self._units[job.kind](job, heartbeat, lambda: heartbeat.lost or self._drain.is_over)
            except Exception:
                if heartbeat.lost:
                    raise LeaseLost("The work was given to another worker.") from None
                raise

    def _report(self, claim: Claim, error: Exception) -> bool:
        """Reports a unit that raised. Returns whether the database accepted the report."""
        outcome = self._outcome(error)
        self._observer.unit_ended(claim, outcome)
        try:
            self._tell(claim, error, outcome)
        except RegenError as failure:
            # The lease expires, and a sweeper gives the work back.
            log.warning("report_failed", error=failure.message, detail=failure.detail)
            return False
        if outcome is UnitOutcome.POSTPONED and not self._is_well():
            # This machine may be the only one that lacks something: it must not take all the work in vain.
            # But one faulty render must not cost the others this worker's time.
            self._rest_seconds = self._outages_in_a_row.next_pause()
        return True

    def _outcome(self, error: Exception) -> UnitOutcome:
        detail = getattr(error, "detail", None)
        if isinstance(error, ConfigurationError) and not self._drain.requested:
            log.critical("worker_cannot_work", error=error.message, detail=detail)
            self._stop()
            return UnitOutcome.GIVEN_BACK
        outcome = UnitOutcome.of_error(error, is_draining=self._drain.requested)
        match outcome:
            case UnitOutcome.GIVEN_BACK:
                log.info("work_given_back", reason=str(error), detail=detail)
            case UnitOutcome.LEASE_LOST:
                log.warning("work_abandoned")
            case UnitOutcome.POSTPONED:
                log.warning("work_postponed", error=str(error), detail=detail)
            case _:
                # The message and the detail of a permanent error make a traceback superfluous.
                traceback = None if isinstance(error, PermanentError) else error
                log.error("work_failed", error=str(error), exc_info=traceback, detail=detail)
        return outcome

    def _tell(self, claim: Claim, error: Exception, outcome: UnitOutcome) -> None:
        def tell() -> None:
            match outcome:
                case UnitOutcome.GIVEN_BACK:
                    self._ledger.hand_back(claim)
                case UnitOutcome.POSTPONED:
                    self._ledger.postponed(claim)
                case UnitOutcome.LEASE_LOST:
                    self._ledger.put_down(claim)
                case UnitOutcome.FAILED if self._ledger.failed(claim, error):
                    self._observer.quarantined(str(error))

        self._outage_retry.call(tell, cancelled=lambda: self._drain.is_over)

    def _rest(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._drain.requested:
            current_progress().beat()
            time.sleep(POLL_SECONDS)
