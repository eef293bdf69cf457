"""Stopping threads and ffmpeg processes together: on the first error, on request, or when frames stop coming."""

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

log = structlog.get_logger(__name__)

POLL_SECONDS = 0.25
QUEUE_POLL_SECONDS = 0.1
# How long after a stall the work may take to come back before `on_stall` is called.
GRACE_SECONDS = 5.0

Item = TypeVar("Item")


class Abandoned(Exception):
    """The work was stopped for a reason that the watch holds; a thread that sees this just ends."""


class Watch:
    """Watches one piece of work in a thread of its own; use it in a `with` block around the work.

    `cancelled` is asked every quarter of a second, in the watch's thread. Without `progress` for `stall_seconds` the
    work is stopped with PipelineStalled. To stop means: processes given to `own` are killed, which frees threads that
    wait for them, and queues raise Abandoned. A thread within a network call cannot be freed so; when the work has not
    ended `GRACE_SECONDS` after a stall, `on_stall` is called (once, in the watch's thread), which may end the process.
    """

    def __init__(
        self,
        *,
        cancelled: Callable[[], bool],
        stall_seconds: float,
        on_stall: Callable[[], None] | None = None,
    ) -> None:
        self._cancelled = cancelled
        self._stall_seconds = stall_seconds
        self._on_stall = on_stall
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self._processes: list[FfmpegProcess] = []
        self._finished = threading.Event()
        self._last_progress = time.monotonic()
        # Its log lines say what is bound in the thread that made it.
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._run,), name="watch", daemon=True
        )

    @property
    def is_stopped(self) -> bool:
        return self._error is not None

    def progress(self) -> None:
        """A frame moved."""
        self._last_progress = time.monotonic()

    def own(self, process: FfmpegProcess) -> FfmpegProcess:
        """Kill this process when the work is stopped."""
        with self._lock:
            self._processes.append(process)
            stopped = self._error is not None
        if stopped:
            process.kill()
        return process

    def fail(self, error: BaseException) -> None:
        """Stop the work. Of several errors the first counts."""
        with self._lock:
            if self._error is None:
                self._error = error
            processes = list(self._processes)
        for process in processes:
            process.kill()

    def check(self) -> None:
        """Raise the error that stopped the work, if it was."""
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Self:
        self._last_progress = time.monotonic()
        # What was called off before it began does not begin: it may be too short for the thread's first look.
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
                        "The work on the video came to a halt.",
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
            # The work must not go on unwatched; the question's failure is what stops it.
            self.fail(error)
            return
        if cancelled:
            self.fail(Canceled())


class Handover(Generic[Item]):
    """A bounded queue between two threads of one piece of work. `maxsize` 0: bounded by what goes round in it."""

    def __init__(self, watch: Watch, *, maxsize: int = 0) -> None:
        self._watch = watch
        self._queue: queue.Queue[Item] = queue.Queue(maxsize)

    def put(self, item: Item) -> None:
        """Raises Abandoned once the work is stopped."""
        while True:
            if self._watch.is_stopped:
                raise Abandoned
            try:
                return self._queue.put(item, timeout=QUEUE_POLL_SECONDS)
            except queue.Full:
                continue

    def get(self) -> Item:
        """Raises Abandoned once the work is stopped."""
        while True:
            if self._watch.is_stopped:
                raise Abandoned
            try:
                return self._queue.get(timeout=QUEUE_POLL_SECONDS)
            except queue.Empty:
                continue


class Worker(threading.Thread):
    """A thread of one piece of work: its error stops all of it, its log lines say what is bound where it was made."""

    def __init__(self, watch: Watch, work: Callable[[], None], *, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._context = copy_context()
        self._watch = watch
        self._work = work

    def run(self) -> None:
        try:
            self._context.run(self._work)
        except Abandoned:
            return
        except BaseException as error:  # handed to the thread that waits for this one
            self._watch.fail(error)
