"""Previews: single frames, made beside the unit of work in hand and ahead of all renders."""

import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import structlog

from app.platform.errors import (
    ConfigurationError,
    LeaseLost,
    PermanentError,
    PipelineStalled,
    RegenError,
    Unavailable,
)
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.progress import Progress, reporting_to
from app.platform.retry_policies import RetryRow, preview_poll
from app.platform.settings import Settings
from app.platform.storage.contract import Storage
from app.platform.storage.keys import after_key, before_key
from app.platform.threads import background_thread
from app.previews.service import PreviewJob, PreviewLedger
from app.work.drain import Drain
from app.work.heartbeat import Heartbeat
from app.work.loop import Cancelled, UnitOutcome
from app.work.outage_retry import OutageRetry
from worker.metrics import HEARTBEAT_FAILURES, PREVIEWS
from worker.pictures import CONTENT_TYPES
from worker.preview_maker import PreviewMaker, PreviewResult
from worker.transfers import StorageTransfers
from worker.workspace import Workspace

# How long network and input are kept for the next preview.
IDLE_SECONDS = 60.0
# A computing device cannot be interrupted; the end of the worker does not wait for it any longer.
STOP_SECONDS = 5.0
LONGEST_RUN_SECONDS = 600.0
# After so long a preview gives way to those of other users, so many times; then it fails if they still wait.
TURN_SECONDS = 2.0
MOST_TURNS = 6
ASK_SECONDS = 1.0
OTHERS_WAIT = (
    "This preview takes long, because its moment is far behind the last key frame, and other users' previews wait. "
    "Choose an earlier moment, or try again later."
)

log = structlog.get_logger(__name__)


class _GivesWay(Exception):
    """The preview in hand gives way to those of other users."""


class _Turn:
    """A preview's time with this worker. `is_over` once it was long and another user's preview waits."""

    def __init__(self, ledger: PreviewLedger, job: PreviewJob) -> None:
        self._ledger = ledger
        self._job = job
        self._ask_at = time.monotonic() + TURN_SECONDS
        self.was_ended = False

    def is_over(self) -> bool:
        """Called often: asks the database at most once a second."""
        if not self.was_ended and time.monotonic() >= self._ask_at:
            self._ask_at = time.monotonic() + ASK_SECONDS
            with contextlib.suppress(Unavailable):
                self.was_ended = self._ledger.others_wait(self._job.user_id)
        return self.was_ended


class Previewer:
    """A thread of every worker of the GPU queue. It shares the device with the segment in hand, and nothing else:
    network, input and errors are its own. `start` and `stop` are called from the main thread.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        ledger: PreviewLedger,
        storage: Storage,
        runner: FfmpegRunner,
        outage_retry: OutageRetry,
        drain: Drain,
    ) -> None:
        longest_run = min(runner.limits.wall_seconds, LONGEST_RUN_SECONDS)
        self._settings = settings
        self._ledger = ledger
        self._transfers = StorageTransfers(storage=storage, outage_retry=outage_retry)
        own_runner = runner.under(replace(runner.limits, wall_seconds=longest_run))
        self._outage_retry = outage_retry
        self._drain = drain
        self._maker = PreviewMaker(settings, own_runner)
        self._workspace: Workspace | None = None
        self._in_hand: PreviewJob | None = None
        self._turns: Counter[str] = Counter()
        self.may_claim: Callable[[], bool] = lambda: True
        self.progress = Progress()
        self._ended = threading.Event()
        self._thread = background_thread(self._run, name="previewer")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Gives back the preview in hand unless it ends soon. Does nothing when the thread was never started."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)
        with contextlib.suppress(RegenError):  # then its lease expires
            self.give_back(False)
        self._release()

    def give_back(self, is_hanging: bool) -> None:
        """As WorkLoop.give_back. Raises Unavailable."""
        job = self._in_hand
        if job is not None and is_hanging:
            self._ledger.failed(job.claim, PipelineStalled("The preview stalled."))
        elif job is not None:
            self._ledger.hand_back(job.claim)

    @property
    def is_left_computing(self) -> bool:
        """Whether a preview continues after `stop`, in a thread that cannot be ended."""
        return self._thread.is_alive()

    def make_next(self) -> bool:
        """Makes a preview if one waits. Returns whether one did. Raises Unavailable without the database."""
        job = self._ledger.claim() if self._ledger.any_waits() else None
        if job is None:
            return False
        self._in_hand = job
        fields = {"preview_id": job.claim.preview_id, "attempt": job.claim.attempt, "engine": job.engine}
        with structlog.contextvars.bound_contextvars(**fields):
            log.info("preview_started", file_id=job.file_id)
            started = time.monotonic()
            try:
                self._work_on(job)
            except _GivesWay:
                self._give_way(job)
            except Exception as error:
                self._report(job, error)
            else:
                PREVIEWS.labels(job.engine, UnitOutcome.DONE.value).inc()
                log.info("preview_done", seconds=round(time.monotonic() - started, 3))
        self._in_hand = None
        return True

    def _run(self) -> None:
        with reporting_to(self.progress):
            self._make_all()

    def _make_all(self) -> None:
        interval_seconds = self._settings.preview_interval_seconds
        policy = preview_poll(interval_seconds)
        outages = RetryRow(policy)
        pause_seconds, made_at = interval_seconds, time.monotonic()
        # Spread, so that many workers do not ask at the same time.
        while not self._ended.wait(pause_seconds * random.uniform(0.8, 1.2)):  # noqa: S311
            self.progress.beat()
            try:
                while not self._is_ending() and self.may_claim() and self.make_next():
                    made_at = time.monotonic()
                pause_seconds = interval_seconds
                outages.reset()
            except Unavailable as error:
                if not outages.retries:
                    log.warning("previews_not_seen", error=error.message, detail=error.detail)
                pause_seconds = outages.next_pause()
            except Exception:
                # A defect must not end the thread.
                log.exception("previews_not_seen")
                pause_seconds = policy.longest_seconds
            if time.monotonic() - made_at > IDLE_SECONDS:
                self._release()

    def _is_ending(self) -> bool:
        return self._ended.is_set() or self._drain.requested

    def _release(self) -> None:
        self._maker.release()
        self._turns.clear()
        workspace, self._workspace = self._workspace, None
        if workspace is not None:
            workspace.close()

    def _report(self, job: PreviewJob, error: Exception) -> None:
        """Reports a preview that raised. Raises Unavailable; then its lease expires."""
        detail = getattr(error, "detail", None)
        outcome = UnitOutcome.of_error(error, is_draining=self._drain.requested)
        if outcome is UnitOutcome.FAILED and isinstance(error, ConfigurationError):
            outcome = UnitOutcome.POSTPONED
        match outcome:
            case UnitOutcome.LEASE_LOST:
                # Usually it was deleted.
                log.info("preview_abandoned")
            case UnitOutcome.GIVEN_BACK:
                log.info("preview_given_back", reason=str(error), detail=detail)
                self._ledger.hand_back(job.claim)
            case UnitOutcome.POSTPONED:
                log.warning("preview_postponed", error=str(error), detail=detail)
                self._ledger.postponed(job.claim)
            case _:
                log.error("preview_failed", exc_info=error, detail=detail)
                self._ledger.failed(job.claim, error)
        PREVIEWS.labels(job.engine, outcome.value).inc()

    def _work_on(self, job: PreviewJob) -> None:
        turn = _Turn(self._ledger, job)
        with Heartbeat(self._ledger, job.claim, on_failure=HEARTBEAT_FAILURES.inc) as heartbeat:
            try:
                self._make(job, cancelled=lambda: heartbeat.lost or self._drain.is_over or turn.is_over())
            except Exception:
                if heartbeat.lost:
                    raise LeaseLost("The preview was given to another worker, or deleted.") from None
                if turn.was_ended and not self._drain.is_over:
                    raise _GivesWay from None
                raise

    def _give_way(self, job: PreviewJob) -> None:
        """Gives the preview back, or ends it if it gave way too often. Raises Unavailable; then its lease expires."""
        self._turns[job.claim.preview_id] += 1
        if self._turns[job.claim.preview_id] > MOST_TURNS:
            del self._turns[job.claim.preview_id]
            self._report(job, PermanentError(OTHERS_WAIT))
            return
        log.info("preview_gave_way")
        self._ledger.gave_way(job)

    def _make(self, job: PreviewJob, *, cancelled: Cancelled) -> None:
        if self._workspace is None:
            room = self._settings.input_cache_bytes
            self._workspace = Workspace(self._settings.work_dir, cache_bytes=room)

        source = self._workspace.fetch_input(
            file_id=job.file_id,
            storage_key=job.input_key,
            fetch=partial(self._transfers.fetch_input, cancelled=cancelled),
            fetch_ranges=partial(self._transfers.fetch_input_ranges, job.input_key, cancelled=cancelled),
            cancelled=cancelled,
        )
        with self._workspace.job_directory() as directory:
            made = self._maker.make(job, source, directory, cancelled=cancelled)
            self._store(job, made, cancelled=cancelled)

    def _store(self, job: PreviewJob, made: PreviewResult, *, cancelled: Cancelled) -> None:
        preview_id, attempt = job.claim.preview_id, job.claim.attempt
        before = before_key(preview_id, attempt=attempt, suffix=f".{made.kind}")
        after = after_key(preview_id, attempt=attempt, suffix=f".{made.kind}")
        with self._transfers.removed_unless_reported(before, after):
            self._transfers.put(
                before, made.before, content_type=CONTENT_TYPES[made.kind], cancelled=cancelled
            )
            self._transfers.put(after, made.after, content_type=CONTENT_TYPES[made.kind], cancelled=cancelled)
            self._outage_retry.call(
                lambda: self._ledger.completed(
                    job.claim, crop=made.crop, before_key=before, after_key=after, warnings=made.warnings
                ),
                cancelled=lambda: self._drain.is_over,
            )
