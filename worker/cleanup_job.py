"""The clean-up job: one of all workers removes expired data and orphans, beside its work."""

import random
import threading
from collections.abc import Callable
from dataclasses import asdict

import structlog

from app.cleanup.orphans import find_orphans, remove_orphans
from app.cleanup.service import DAY_SECONDS, CleanUp, RetentionRules
from app.platform.database import Database
from app.platform.errors import RegenError
from app.platform.settings import Settings
from app.platform.storage.contract import Storage
from app.platform.threads import background_thread
from app.work import periodic_tasks

CLEAN_UP = "clean-up"
ORPHANS = "orphans"
# How long the worker's end waits for a delete that hangs.
STOP_SECONDS = 5.0

log = structlog.get_logger(__name__)


class CleanUpJob:
    """A thread of every worker of the CPU queue. A table lets one worker at a time run each task."""

    def __init__(self, *, settings: Settings, database: Database, storage: Storage, worker: str) -> None:
        self._database = database
        self._storage = storage
        self._worker = worker
        self._interval_seconds = settings.cleanup_interval_seconds
        self._ended = threading.Event()
        self._clean_up = CleanUp(
            database=database,
            storage=storage,
            rules=RetentionRules.from_settings(settings),
            stopped=self._ended.is_set,
        )
        self._thread = background_thread(self._run, name="clean-up")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the running task after its present step. Does nothing when the thread was never started."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)

    def run_due_tasks(self) -> None:
        """Runs the due tasks that no other worker runs. Never raises."""
        self._run_if_due(CLEAN_UP, self._remove_expired, every_seconds=self._interval_seconds)
        self._run_if_due(ORPHANS, self._remove_orphans, every_seconds=DAY_SECONDS)

    def _run(self) -> None:
        # Spread, so that many workers do not ask at the same time.
        pause_seconds = self._interval_seconds * random.uniform(0.05, 0.15)  # noqa: S311
        while not self._ended.wait(pause_seconds):
            self.run_due_tasks()
            pause_seconds = self._interval_seconds * random.uniform(0.5, 1.0)  # noqa: S311

    def _run_if_due(self, name: str, task: Callable[[], None], *, every_seconds: float) -> None:
        try:
            with self._database.write() as session:
                is_due = periodic_tasks.claim_run(
                    session, name, worker=self._worker, every_seconds=every_seconds
                )
            if is_due:
                task()
        except RegenError as error:
            log.warning("periodic_task_failed", task=name, error=error.message, detail=error.detail)
        except Exception:
            # A defect in one task must end neither the others nor the work.
            log.exception("periodic_task_failed", task=name)

    def _remove_expired(self) -> None:
        removed = self._clean_up.run()
        if removed:
            log.info("cleaned_up", **asdict(removed))

    def _remove_orphans(self) -> None:
        orphans = find_orphans(self._database, self._storage, stopped=self._ended.is_set)
        removed = remove_orphans(self._storage, orphans, stopped=self._ended.is_set)
        if removed:
            log.info("orphans_removed", objects=removed, known=orphans.known)
