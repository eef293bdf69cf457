"""What a wake-up makes a worker do: claim one unit of work, run it, report how it ended."""

import threading
from collections.abc import Callable
from typing import Any

import structlog

from app.core.errors import ConfigurationError, LeaseLost, RegenError
from app.core.repositories.work import Claim
from app.core.services.work import WorkLedger
from app.core.statuses import WorkKind
from worker.heartbeat import Heartbeat
from worker.steps import Steps

log = structlog.get_logger(__name__)


class WorkTask:
    """The body of the one Celery task.

    `draining`, once set, stops the work in hand and gives it back. `stop` ends the worker: this machine is set up so
    that it can do no work.
    """

    def __init__(
        self,
        *,
        ledger: WorkLedger,
        steps: Steps,
        wake: Callable[[int], bool],
        draining: threading.Event,
        stop: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._steps = steps
        self._wake = wake
        self._draining = draining
        self._stop = stop

    def __call__(self) -> None:
        if self._draining.is_set():
            # The message was for whoever is free: hand it on.
            self._wake(1)
            return
        claim = self._ledger.claim()
        if claim is None:
            log.debug("nothing_to_do")
            return
        facts = {
            "kind": claim.kind.value,
            "render_id": claim.render_id,
            "segment_id": claim.segment_id,
            "attempt": claim.attempt,
        }
        log.info("work_started", **facts)
        try:
            units = self._run(claim)
            log.info("work_done", **facts)
        except Exception as error:
            units = self._report(claim, error, facts)
        if units:
            self._wake(units)

    def _report(self, claim: Claim, error: Exception, facts: dict[str, Any]) -> int:
        """What becomes of work whose step raised. Returns the units made ready by it."""
        if self._draining.is_set():
            log.info("work_given_back", **facts)
            return self._ledger.hand_back(claim)
        if isinstance(error, LeaseLost):
            log.warning("work_abandoned", **facts)
            return 0
        if isinstance(error, ConfigurationError):
            log.critical("worker_cannot_work", error=error.message, detail=error.detail, **facts)
            self._stop()
            return self._ledger.hand_back(claim)
        detail = error.detail if isinstance(error, RegenError) else None
        log.error("work_failed", exc_info=error, detail=detail, **facts)
        self._ledger.failed(claim, error)
        return 0

    def _run(self, claim: Claim) -> int:
        step = {
            WorkKind.PREPARE: self._steps.prepare,
            WorkKind.UPSCALE: self._steps.upscale,
            WorkKind.FINISH: self._steps.finish,
        }[claim.kind]
        with Heartbeat(self._ledger, claim) as heartbeat:
            try:
                return step(claim, heartbeat, lambda: heartbeat.lost or self._draining.is_set())
            except Exception:
                if heartbeat.lost:
                    raise LeaseLost("The work was given to another worker.") from None
                raise
