"""Outages: what is not the work's own fault, and how it is ridden out."""

import concurrent.futures
import errno
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from typing import TypeVar

import structlog

from app.platform.errors import (
    Canceled,
    FfmpegDiskFull,
    FfmpegMissing,
    KeyNotFound,
    StorageError,
    Unavailable,
    causes,
)

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 5.0
POLL_SECONDS = 0.1

Result = TypeVar("Result")
Ask = Callable[[], bool]

log = structlog.get_logger(__name__)

_jitter = random.SystemRandom()


def is_outage(error: BaseException) -> bool:
    """Whether storage, database, room on the disk or the video program was missing, rather than the work at fault.

    Memory that ran out and an ffmpeg that was killed do not count: the video itself may be what takes too much.
    """
    if isinstance(error, KeyNotFound):
        return False
    return isinstance(error, StorageError | Unavailable | FfmpegMissing) or is_disk_full(error)


def is_disk_full(error: BaseException) -> bool:
    """Whether that is what the error came from."""
    return any(
        isinstance(cause, FfmpegDiskFull)
        or (isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT))
        for cause in causes(error)
    )


class Patience:
    """How long a worker waits for storage and database, with the work that it has in hand or has done."""

    def __init__(self, *, seconds: float) -> None:
        self._seconds = seconds
        self._errands: list[Future[None]] = []

    @property
    def is_left_waiting(self) -> bool:
        """Whether a transfer that was called off still hangs, in a thread that nobody can end."""
        return any(not errand.done() for errand in self._errands)

    def ride_out(self, action: Callable[[], Result], *, called_off: Ask) -> Result:
        """Do it again, after growing pauses, while it ends in outages, `seconds` at most or until it is called off.

        It must be safe to repeat. Raises what it raised last.
        """
        give_up_at: float | None = None
        pause_seconds = FIRST_PAUSE_SECONDS
        while True:
            try:
                return action()
            except Exception as error:
                if not is_outage(error):
                    raise
                now = time.monotonic()
                give_up_at = now + self._seconds if give_up_at is None else give_up_at
                if now >= give_up_at or not _rest(pause_seconds * _jitter.uniform(0.75, 1.0), called_off):
                    raise
                log.warning("outage_waited_out", error=str(error), detail=getattr(error, "detail", None))
            pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)

    def transfer(self, action: Callable[[], None], *, called_off: Ask, undo: Callable[[], None]) -> None:
        """As `ride_out`, for what may hang: it is waited for no longer than until it is called off.

        Then raises Canceled, while the transfer goes on in its thread; should it succeed after all, `undo` follows.
        """
        self.ride_out(
            lambda: self._run_beside(action, called_off=called_off, undo=undo), called_off=called_off
        )

    def try_briefly(self, action: Callable[[], None], *, seconds: float) -> bool:
        """Do it, and wait so long for it. Returns whether it is done. Raises what it raises."""
        give_up_at = time.monotonic() + seconds
        try:
            self._run_beside(action, called_off=lambda: time.monotonic() > give_up_at, undo=lambda: None)
        except Canceled:
            return False
        return True

    def _run_beside(self, action: Callable[[], None], *, called_off: Ask, undo: Callable[[], None]) -> None:
        done: Future[None] = Future()
        abandoned = threading.Event()

        def run() -> None:
            try:
                action()
                done.set_result(None)
            except BaseException as error:  # handed to the thread that waits for this one
                done.set_exception(error)
                return
            if abandoned.is_set():
                log.info("late_transfer_undone")
                undo()

        # A daemon: the process must be able to end while the network says nothing.
        threading.Thread(target=copy_context().run, args=(run,), name="transfer", daemon=True).start()
        while not concurrent.futures.wait([done], timeout=POLL_SECONDS).done:
            if not called_off():
                continue
            abandoned.set()
            # One that has ended just now may not have seen that.
            if not done.done():
                self._errands = [*(one for one in self._errands if not one.done()), done]
                raise Canceled()
        done.result()


def _rest(seconds: float, called_off: Ask) -> bool:
    """Returns whether to go on: not once it is called off."""
    until = time.monotonic() + seconds
    while not called_off():
        left = until - time.monotonic()
        if left <= 0:
            return True
        time.sleep(min(left, POLL_SECONDS))
    return False
