"""Stops the threads and ffmpeg processes of one job together: on the first error, on cancellation, or on a stall."""

import queue
import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from types import TracebackType
from typing import Generic, Self, TypeVar

import structlog

from app.platform.errors import Canceled, PipelineStalled
from app.platform.media.ffmpeg import FfmpegProcess
from app.platform.progress import current_progress
from app.platform.threads import background_thread

log = structlog.get_logger(__name__)

POLL_SECONDS = 0.25
QUEUE_POLL_SECONDS = 0.1
# How long the job may take to end after a stall before `on_stall` is called.
GRACE_SECONDS = 5.0

Item = TypeVar("Item")


class PipelineStopped(Exception):
    """The job was stopped, for a reason that the watchdog holds. A thread that gets this ends without reporting it."""


class Watchdog:
    """Supervises one job from its own thread; a context manager around the job.

    `cancelled` is polled every POLL_SECONDS in the watchdog's thread. Without a call of `progress` for `stall_seconds`
    the job is stopped with PipelineStalled; the first call may come `first_seconds` later. To stop
    it, the watchdog kills the processes given to `own`, which unblocks the threads that wait for them, and its queues
    raise PipelineStopped. A thread inside an inference call cannot be unblocked so: if the job has not ended
    GRACE_SECONDS after a stall, `on_stall` is called, once, in the watchdog's thread; it may end the process.
    """

    def __init__(
        self,
        *,
        cancelled: Callable[[], bool],
        stall_seconds: float,
        on_stall: Callable[[], None] | None = None,
        first_seconds: float = 0.0,
    ) -> None:
        self._first_seconds = first_seconds
        self._cancelled = cancelled
        self._stall_seconds = stall_seconds
        self._on_stall = on_stall
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self._processes: list[FfmpegProcess] = []
        self._finished = threading.Event()
        self._last_progress = time.monotonic()
        self._progress = current_progress()
        # Log lines carry the context of the thread that creates the watchdog.
        self._thread = background_thread(self._run, name="watchdog")

    @property
    def is_stopped(self) -> bool:
        return self._error is not None

    def progress(self) -> None:
        """Report that a frame has moved."""
        self._last_progress = time.monotonic()
        self._progress.beat()

    def own(self, process: FfmpegProcess) -> FfmpegProcess:
        """Kill the process when the job is stopped."""
        with self._lock:
            self._processes.append(process)
            stopped = self._error is not None
        if stopped:
            process.kill()
        return process

    def fail(self, error: BaseException) -> None:
        """Stop the job. Only the first error is kept."""
        with self._lock:
            if self._error is None:
                self._error = error
            processes = list(self._processes)
        for process in processes:
            process.kill()

    def check(self) -> None:
        """Raises the error that stopped the job, if it was stopped."""
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Self:
        self._last_progress = time.monotonic() + self._first_seconds
        # A job that was cancelled before it began must not begin: it may end before the first poll.
        self._ask()
        self.check()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finished.set()
        self._thread.join()

    def _run(self) -> None:
        stalled_at: float | None = None
        reported = False
        while not self._finished.wait(POLL_SECONDS):
            now = time.monotonic()
            if self._error is None:
                self._ask()
            if stalled_at is None and now - self._last_progress > self._stall_seconds:
                stalled_at = now
                self.fail(
                    PipelineStalled(
                        "The work on the video stalled.",
                        detail=f"no frame for {self._stall_seconds:g} s",
                    )
                )
            if stalled_at is not None and not reported and now - stalled_at > GRACE_SECONDS:
                reported = True
                log.error("work_hangs", seconds=round(now - self._last_progress))
                if self._on_stall is not None:
                    self._on_stall()

    def _ask(self) -> None:
        try:
            cancelled = self._cancelled()
        except Exception as error:
            # The job must not go on unsupervised.
            self.fail(error)
            return
        if cancelled:
            self.fail(Canceled())


class PipelineQueue(Generic[Item]):
    """A queue between two threads of one job. `maxsize` 0: bounded by the number of buffers that circulate."""

    def __init__(self, watchdog: Watchdog, *, maxsize: int = 0) -> None:
        self._watchdog = watchdog
        self._queue: queue.Queue[Item] = queue.Queue(maxsize)

    def put(self, item: Item) -> None:
        """Raises PipelineStopped once the job is stopped."""
        while True:
            if self._watchdog.is_stopped:
                raise PipelineStopped
            try:
                return self._queue.put(item, timeout=QUEUE_POLL_SECONDS)
            except queue.Full:
                continue

    def get(self) -> Item:
        """Raises PipelineStopped once the job is stopped."""
        while True:
            if self._watchdog.is_stopped:
                raise PipelineStopped
            try:
                return self._queue.get(timeout=QUEUE_POLL_SECONDS)
            except queue.Empty:
                continue


class PipelineThread(threading.Thread):
    """A thread of one job. Its error stops the job; its log lines carry the context of the thread that creates it."""

    def __init__(self, watchdog: Watchdog, work: Callable[[], None], *, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._watchdog = watchdog
        self._work = work
        # Not `_context`, which is Thread's own from Python 3.14 on.
        self._context_of_creator = copy_context()

    def run(self) -> None:
        try:
            self._context_of_creator.run(self._work)
        except PipelineStopped:
            return
        except BaseException as error:  # raised again by the thread that joins this one
            self._watchdog.fail(error)
