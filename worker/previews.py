"""Previews: one frame at a time, made beside whatever else the worker has in hand, ahead of all renders."""

import contextlib
import random
import threading
import time
from collections.abc import Iterator
from contextvars import copy_context
from dataclasses import replace
from pathlib import Path

import structlog

from app.platform.errors import Canceled, ConfigurationError, LeaseLost, RegenError, Unavailable
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.retry_policies import preview_poll
from app.platform.settings import GIB, Settings
from app.platform.storage.contract import Storage
from app.platform.storage.keys import after_key, before_key
from app.previews.service import PreviewJob, PreviewLedger
from app.work.drain import Drain
from app.work.heartbeat import Heartbeat
from app.work.loop import Cancelled
from app.work.outage_retry import OutageRetry, is_outage
from worker.metrics import HEARTBEAT_FAILURES, PREVIEWS
from worker.pictures import CONTENT_TYPES
from worker.preview_maker import MadePreview, PreviewMaker
from worker.workspace import Workspace

# Network and input are kept for the next preview, which often follows at once.
IDLE_SECONDS = 60.0
# A device that computes cannot be interrupted: whoever ends the worker does not wait for it.
STOP_SECONDS = 5.0
LONGEST_RUN_SECONDS = 600.0
CACHE_BYTES = 4 * GIB

log = structlog.get_logger(__name__)


class Previewer:
    """A thread of every worker of the GPU queue. It shares a device with the segment in hand, and nothing else:
    network, input and errors are its own. `start` and `stop` are the main thread's.
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
        self._storage = storage
        own_runner = FfmpegRunner(
            programs=runner.programs, limits=replace(runner.limits, wall_seconds=longest_run)
        )
        self._outage_retry = outage_retry
        self._drain = drain
        self._maker = PreviewMaker(settings, own_runner)
        self._workspace: Workspace | None = None
        self._in_hand: PreviewJob | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._run,), name="previewer", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """What is in hand goes back, when it does not end at once. Also when it was never started."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)
        job = self._in_hand
        if job is not None:
            with contextlib.suppress(RegenError):  # else its lease runs out
                self._ledger.hand_back(job.claim)
        self._cool_down()

    @property
    def is_left_computing(self) -> bool:
        """Whether a preview still goes on, after `stop`, in a thread that nobody can end."""
        return self._thread.is_alive()

    def look(self) -> bool:
        """Make a preview if one waits. Returns whether one did. Raises Unavailable when the database is away."""
        job = self._ledger.claim() if self._ledger.any_waits() else None
        if job is None:
            return False
        self._in_hand = job
        facts = {"preview_id": job.claim.preview_id, "attempt": job.claim.attempt, "engine": job.engine}
        with structlog.contextvars.bound_contextvars(**facts):
            log.info("preview_started", file_id=job.file_id)
            started = time.monotonic()
            try:
                self._work_on(job)
            except Exception as error:
                self._report(job, error)
            else:
                PREVIEWS.labels(job.engine, "done").inc()
                log.info("preview_done", seconds=round(time.monotonic() - started, 3))
        self._in_hand = None
        return True

    def _run(self) -> None:
        interval_seconds = self._settings.preview_interval_seconds
        retry = preview_poll(interval_seconds)
        pause_seconds, outages, made_at = interval_seconds, 0, time.monotonic()
        # Spread, so that many workers do not ask all at once.
        while not self._ended.wait(pause_seconds * random.uniform(0.8, 1.2)):  # noqa: S311
            try:
                while not self._ended.is_set() and not self._drain.requested and self.look():
                    made_at = time.monotonic()
                pause_seconds, outages = interval_seconds, 0
            except Unavailable as error:
                if not outages:
                    log.warning("previews_not_seen", error=error.message, detail=error.detail)
                outages += 1
                pause_seconds = retry.pause(outages)
            except Exception:
                # A defect must not end the thread.
                log.exception("previews_not_seen")
                pause_seconds = retry.longest_seconds
            if time.monotonic() - made_at > IDLE_SECONDS:
                self._cool_down()

    def _cool_down(self) -> None:
        self._maker.release()
        workspace, self._workspace = self._workspace, None
        if workspace is not None:
            workspace.close()

    def _report(self, job: PreviewJob, error: Exception) -> None:
        """What becomes of a preview whose making raised. Raises Unavailable; then its lease runs out."""
        detail = getattr(error, "detail", None)
        if isinstance(error, LeaseLost | Canceled) and not self._drain.requested:
            # Deleted, most often.
            outcome = "lease_lost"
            log.info("preview_abandoned")
        elif self._drain.requested:
            outcome = "given_back"
            log.info("preview_given_back", reason=str(error), detail=detail)
            self._ledger.hand_back(job.claim)
        elif isinstance(error, ConfigurationError) or is_outage(error):
            outcome = "postponed"
            log.warning("preview_postponed", error=str(error), detail=detail)
            self._ledger.postponed(job.claim)
        else:
            outcome = "failed"
            log.error("preview_failed", exc_info=error, detail=detail)
            self._ledger.failed(job.claim, error)
        PREVIEWS.labels(job.engine, outcome).inc()

    def _work_on(self, job: PreviewJob) -> None:
        with Heartbeat(self._ledger, job.claim, on_failure=HEARTBEAT_FAILURES.inc) as heartbeat:
            try:
                self._make(job, cancelled=lambda: heartbeat.lost or self._drain.is_over)
            except Exception:
                if heartbeat.lost:
                    raise LeaseLost("The preview was given to another worker, or deleted.") from None
                raise

    def _make(self, job: PreviewJob, *, cancelled: Cancelled) -> None:
        if self._workspace is None:
            room = min(self._settings.input_cache_bytes, CACHE_BYTES)
            self._workspace = Workspace(self._settings.work_dir, cache_bytes=room)

        def fetch(storage_key: str, path: Path) -> None:
            self._outage_retry.transfer(
                lambda: self._storage.fetch(storage_key, path),
                cancelled=cancelled,
                undo=lambda: path.unlink(missing_ok=True),
            )

        source = self._workspace.fetch_input(file_id=job.file_id, storage_key=job.input_key, fetch=fetch)
        with self._workspace.job_directory() as directory:
            made = self._maker.make(job, source, directory, cancelled=cancelled)
            self._store(job, made, cancelled=cancelled)

    def _store(self, job: PreviewJob, made: MadePreview, *, cancelled: Cancelled) -> None:
        preview_id, attempt = job.claim.preview_id, job.claim.attempt
        before = before_key(preview_id, attempt=attempt, suffix=f".{made.kind}")
        after = after_key(preview_id, attempt=attempt, suffix=f".{made.kind}")
        with self._removed_when_lost(before, after):
            self._put(before, made.before, content_type=CONTENT_TYPES[made.kind], cancelled=cancelled)
            self._put(after, made.after, content_type=CONTENT_TYPES[made.kind], cancelled=cancelled)
            self._outage_retry.call(
                lambda: self._ledger.completed(
                    job.claim, crop=made.crop, before_key=before, after_key=after, warnings=made.warnings
                ),
                cancelled=lambda: self._drain.is_over,
            )

    def _put(self, key: str, path: Path, *, content_type: str, cancelled: Cancelled) -> None:
        self._outage_retry.transfer(
            lambda: self._storage.put_file(key, path, content_type=content_type),
            cancelled=cancelled,
            undo=lambda: self._storage.delete(key),
        )

    @contextlib.contextmanager
    def _removed_when_lost(self, *keys: str) -> Iterator[None]:
        """Remove what was stored when the row is sure not to name it; what is missed the clean-up finds."""
        try:
            yield
        except (LeaseLost, Canceled):
            with contextlib.suppress(RegenError):
                for key in keys:
                    self._storage.delete(key)
            raise
