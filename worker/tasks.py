"""What a wake-up makes a worker do: claim one unit of work, run it, report how it ended."""

import threading
from collections.abc import Callable

import structlog

from app.core.errors import LeaseLost, RegenError
from app.core.repositories.work import Claim
from app.core.services.work import WorkLedger
from app.core.statuses import WorkKind
from worker.heartbeat import Heartbeat
from worker.steps import Steps

log = structlog.get_logger(__name__)


class WorkTask:
    """The body of the one Celery task. `draining`, once set, stops the work in hand and gives it back."""

    def __init__(
        self, *, ledger: WorkLedger, steps: Steps, wake: Callable[[int], bool], draining: threading.Event
    ) -> None:
        self._ledger = ledger
        self._steps = steps
        self._wake = wake
        self._draining = draining

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
        except LeaseLost:
            log.warning("work_abandoned", **facts)
            return
        except Exception as error:
            if self._draining.is_set():
                log.info("work_given_back", **facts)
                units = self._ledger.hand_back(claim)
            else:
                detail = error.detail if isinstance(error, RegenError) else None
                log.exception("work_failed", detail=detail, **facts)
                self._ledger.failed(claim, error)
                return
        else:
            log.info("work_done", **facts)
        if units:
            self._wake(units)

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
