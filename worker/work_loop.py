"""What a wake-up makes a worker do: claim units of work and run them, one after the other, until there are none."""

import time
from collections import Counter
from collections.abc import Callable

import structlog

from app.platform.errors import Canceled, ConfigurationError, LeaseLost, RegenError
from app.platform.work_kinds import WorkKind
from app.work.ledger import WorkLedger
from app.work.queries import Claim, Job, ReadyUnits
from worker.drain import Drain
from worker.heartbeat import Heartbeat
from worker.metrics import LEASE_LOSSES, UNITS, unit_in_hand
from worker.outage_retry import Patience, is_outage
from worker.work_units import Steps

POLL_SECONDS = 0.1
LONGEST_REST_SECONDS = 15.0

log = structlog.get_logger(__name__)


class WorkTask:
    """The body of the one Celery task.

    `drain` tells when the worker is to end; `stop` has it end because this machine is set up so that it can do no work.
    `patience` is for a database that is away when the end of work is to be told. `wake` announces what became ready,
    and does not wait for the broker.
    """

    def __init__(
        self,
        *,
        ledger: WorkLedger,
        steps: Steps,
        wake: Callable[[ReadyUnits], None],
        drain: Drain,
        patience: Patience,
        stop: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._steps = steps
        self._wake = wake
        self._drain = drain
        self._patience = patience
        self._stop = stop
        self._outages = 0

    def __call__(self) -> None:
        """Never raises. It ends at an error, until the sweeper's next message brings it back: it cannot spin."""
        try:
            while not self._drain.requested:
                claim = self._ledger.claim()
                if claim is None:
                    log.debug("nothing_to_do")
                    return
                if not self._work_on(claim):
                    break
        except RegenError as error:
            log.warning("claim_failed", error=error.message, detail=error.detail)
        except Exception:
            log.exception("claim_failed")
        if self._drain.requested:
            # The message was for whoever is free: hand it on, and with it the work that was given back.
            self._wake(Counter(self._ledger.queues))

    def _work_on(self, claim: Job) -> bool:
        """Returns whether to go on: not when the database could not be told how the work ended."""
        facts = {
            "kind": claim.kind.value,
            "render_id": claim.render_id,
            "segment_id": claim.segment_id,
            "attempt": claim.attempt,
            "request_id": claim.request_id,
        }
        known = {name: fact for name, fact in facts.items() if fact is not None}
        with structlog.contextvars.bound_contextvars(**known), unit_in_hand(claim.kind):
            log.info("work_started")
            self._wake(claim.opened)
            try:
                ready = self._run(claim)
            except Exception as error:
                return self._report(claim, error)
            self._outages = 0
            UNITS.labels(claim.kind.value, "done").inc()
            log.info("work_done")
            self._wake(ready)
            return True

    def _report(self, claim: Claim, error: Exception) -> bool:
        """What becomes of work whose step raised. Returns whether the database took it."""
        if self._drain.requested:
            # Whatever it was: who stops a worker may have stopped its ffmpeg too.
            outcome = "given_back"
            log.info("work_given_back", reason=str(error), detail=getattr(error, "detail", None))
        elif isinstance(error, LeaseLost | Canceled):
            outcome = "lease_lost"
            LEASE_LOSSES.labels(claim.kind.value).inc()
            log.warning("work_abandoned")
        elif isinstance(error, ConfigurationError):
            outcome = "given_back"
            log.critical("worker_cannot_work", error=error.message, detail=error.detail)
            self._stop()
        elif is_outage(error):
            outcome = "postponed"
            log.warning("work_postponed", error=str(error), detail=getattr(error, "detail", None))
        else:
            outcome = "failed"
            log.error("work_failed", exc_info=error, detail=getattr(error, "detail", None))
        UNITS.labels(claim.kind.value, outcome).inc()
        try:
            self._tell(claim, error, outcome)
        except RegenError as failure:
            # The lease runs out, and the sweeper gives the work back.
            log.warning("report_failed", error=failure.message, detail=failure.detail)
            return False
        if outcome == "postponed":
            # This machine may be the only one that lacks something: it must not take up everybody's work in vain.
            self._outages += 1
            self._rest(min(2.0**self._outages, LONGEST_REST_SECONDS))
        return True

    def _tell(self, claim: Claim, error: Exception, outcome: str) -> None:
        tell = {
            "given_back": lambda: self._ledger.hand_back(claim),
            "postponed": lambda: self._ledger.postponed(claim),
            "failed": lambda: self._ledger.failed(claim, error),
        }.get(outcome)
        if tell is not None:
            self._patience.ride_out(tell, called_off=lambda: self._drain.is_over)

    def _rest(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._drain.requested:
            time.sleep(POLL_SECONDS)

    def _run(self, claim: Job) -> ReadyUnits:
        step = {
            WorkKind.PREPARE: self._steps.prepare,
            WorkKind.UPSCALE: self._steps.upscale,
            WorkKind.FINISH: self._steps.finish,
        }[claim.kind]
        with Heartbeat(self._ledger, claim) as heartbeat:
            try:
                return step(claim, heartbeat, lambda: heartbeat.lost or self._drain.is_over)
            except Exception:
                if heartbeat.lost:
                    raise LeaseLost("The work was given to another worker.") from None
                raise
