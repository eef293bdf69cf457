"""Whether this worker claims work, and its actions while it does not.

An operator drains and resumes it by its row. It puts itself in quarantine when its units fail while others'
are done: then it tests itself, and resumes or ends.
"""

import math
import time
from collections.abc import Callable

import structlog

from app.platform.errors import RegenError
from app.platform.retry_policies import QUARANTINE, RetryRow
from app.work.ledger import WorkLedger
from worker.metrics import QUARANTINED

# After so many quarantines or failed tests the process ends; an hour outside restarts the count.
MOST_TRIES = len(QUARANTINE.steps_seconds)
HEALTHY_SECONDS = 3600.0

log = structlog.get_logger(__name__)


class Quarantine:
    """For the main thread, except for `may_claim` and `begin`, which any thread may call.

    `tick` is called at short intervals while no unit is in hand.
    """

    def __init__(
        self,
        ledger: WorkLedger,
        *,
        drained: Callable[[], bool],
        test: Callable[[], None],
        listen: Callable[[bool], None],
        end: Callable[[], None],
    ) -> None:
        """`drained` says whether an operator drains the worker. `test` raises if the worker cannot work.
        `listen` begins (True) or ends (False) to be woken for work. `end` ends the process, so that its
        supervisor starts another."""
        self._ledger = ledger
        self._drained = drained
        self._test = test
        self._listen = listen
        self._end = end
        self._is_on = False
        self._is_listening = True
        self._tries = RetryRow(QUARANTINE)
        self._test_at = 0.0
        self._recovered_at = -math.inf

    @property
    def may_claim(self) -> bool:
        return not self._is_on and not self._drained()

    def begin(self, reason: str) -> None:
        """The row is already in quarantine. Two units that end at the same time may both request it."""
        if self._is_on:
            return
        if time.monotonic() - self._recovered_at > HEALTHY_SECONDS:
            self._tries.reset()
        self._is_on = True
        QUARANTINED.set(1)
        log.error("worker_quarantined", reason=reason)
        self._plan_test()

    def tick(self) -> None:
        """Never raises."""
        try:
            if self._is_on:
                self._look_after()
        except RegenError as error:
            log.warning("quarantine_unchanged", error=error.message, detail=error.detail)
        except Exception:
            log.exception("quarantine_unchanged")
        if self.may_claim is not self._is_listening:
            self._is_listening = self.may_claim
            if self._is_listening:
                log.info("worker_resumed")
            elif not self._is_on:
                log.info("worker_drained")
            self._listen(self._is_listening)

    def _look_after(self) -> None:
        if not self._ledger.standing().is_quarantined:
            self._recover("an operator resumed it")
        elif time.monotonic() >= self._test_at:
            self._decide()

    def _decide(self) -> None:
        try:
            self._test()
        except Exception as error:
            detail = getattr(error, "detail", None)
            log.warning("self_test_failed", error=str(error), detail=detail, tries=self._tries.retries)
            if self._tries.retries >= MOST_TRIES:
                log.critical("worker_unfit", error=str(error), detail=detail)
                self._end()
            self._plan_test()
            return
        if self._tries.retries >= MOST_TRIES:
            log.critical("worker_unfit", error="The worker passes its test, but its work fails.")
            self._end()
            return
        self._ledger.recover()
        self._recover("it passed its test")

    def _recover(self, reason: str) -> None:
        self._is_on = False
        self._recovered_at = time.monotonic()
        QUARANTINED.set(0)
        log.info("worker_recovered", reason=reason)

    def _plan_test(self) -> None:
        self._test_at = time.monotonic() + self._tries.next_pause()
