"""Outages: which errors are not the work's own failure, and how calls are repeated during an outage."""

import concurrent.futures
import errno
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

import structlog

from app.platform.errors import (
    Canceled,
    DiskTooSmall,
    FfmpegDiskFull,
    FfmpegMissing,
    KeyNotFound,
    StorageError,
    Unavailable,
    causes,
)
from app.platform.progress import Stillness, current_progress
from app.platform.retry_policies import OUTAGE_RETRY
from app.platform.threads import background_thread

POLL_SECONDS = 0.1

Result = TypeVar("Result")

log = structlog.get_logger(__name__)


def is_outage(error: BaseException) -> bool:
    """Whether storage, database, disk space or the video program was missing, rather than the work at fault.

    Exhausted memory, a killed ffmpeg, a command that is too long and a disk that is too small for the video
    do not count: the video itself may be the cause.
    """
    if isinstance(error, KeyNotFound | DiskTooSmall):
        return False
    return isinstance(error, StorageError | Unavailable | FfmpegMissing) or is_disk_full(error)


def is_disk_full(error: BaseException) -> bool:
    """Whether a full disk is among the error's causes."""
    return any(
        isinstance(cause, FfmpegDiskFull)
        or (isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT))
        for cause in causes(error)
    )


class OutageRetry:
    """Repeats calls to storage and database for up to `seconds` while they end in outages.

    Calls must be safe to repeat.
    """

    def __init__(self, *, seconds: float, stall_seconds: float = math.inf) -> None:
        """`stall_seconds`: how long a transfer may move no bytes."""
        self._seconds = seconds
        self._stall_seconds = stall_seconds
        self._abandoned: set[Future[None]] = set()

    @property
    def has_hanging_transfer(self) -> bool:
        """Whether a cancelled transfer still hangs, in a thread that cannot be ended."""
        return bool(self._abandoned)

    def call(self, action: Callable[[], Result], *, cancelled: Callable[[], bool]) -> Result:
        """Calls `action`, again after growing pauses while it ends in outages and is not cancelled.

        Raises what `action` raised last.
        """
        give_up_at: float | None = None
        pauses = OUTAGE_RETRY.pauses()
        while True:
            try:
                return action()
            except Exception as error:
                if not is_outage(error):
                    raise
                now = time.monotonic()
                give_up_at = now + self._seconds if give_up_at is None else give_up_at
                if now >= give_up_at or not _rest(next(pauses), cancelled):
                    raise
                log.warning("outage_retried", error=str(error), detail=getattr(error, "detail", None))

    def transfer(
        self, action: Callable[[], None], *, cancelled: Callable[[], bool], undo: Callable[[], None]
    ) -> None:
        """Like `call`, for an action that may hang: waits for it only until it is cancelled, or has moved no
        bytes for so long that the storage counts as unavailable. Then raises Canceled or StorageError, while
        the transfer continues in its thread; if it succeeds after all, `undo` is called.
        """
        self.call(lambda: self._run_in_thread(action, cancelled=cancelled, undo=undo), cancelled=cancelled)

    def call_with_timeout(self, action: Callable[[], None], *, seconds: float) -> bool:
        """Calls `action` once. Returns whether it ended in time. Raises what it raises."""
        give_up_at = time.monotonic() + seconds
        try:
            self._run_in_thread(action, cancelled=lambda: time.monotonic() > give_up_at, undo=lambda: None)
        except Canceled:
            return False
        return True

    def _run_in_thread(
        self, action: Callable[[], None], *, cancelled: Callable[[], bool], undo: Callable[[], None]
    ) -> None:
        done: Future[None] = Future()
        abandoned = threading.Event()

        def run() -> None:
            try:
                action()
                done.set_result(None)
            except BaseException as error:  # handed to the waiting thread
                done.set_exception(error)
                return
            if abandoned.is_set():
                log.info("late_transfer_undone")
                undo()

        # A daemon thread: the process must be able to end while the network does not answer.
        background_thread(run, name="transfer").start()
        stillness = Stillness(current_progress())
        while not concurrent.futures.wait([done], timeout=POLL_SECONDS).done:
            is_silent = stillness.tick(POLL_SECONDS) > self._stall_seconds
            if not (is_silent or cancelled()):
                continue
            abandoned.set()
            # A transfer that ended just now may not have noticed that.
            if not done.done():
                self._abandoned.add(done)
                done.add_done_callback(self._abandoned.discard)
                if is_silent:
                    raise StorageError(
                        "The storage does not answer.", detail=f"nothing moved for {self._stall_seconds:g} s"
                    )
                raise Canceled()
        done.result()


def _rest(seconds: float, cancelled: Callable[[], bool]) -> bool:
    """Returns whether to continue: False once it is cancelled."""
    until = time.monotonic() + seconds
    while not cancelled():
        left = until - time.monotonic()
        if left <= 0:
            return True
        current_progress().beat()
        time.sleep(min(left, POLL_SECONDS))
    return False
