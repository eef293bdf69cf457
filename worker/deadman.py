"""The deadman: ends a worker process that makes no progress, or that does not end although it was asked to.

A supervisor, systemd or the container engine starts another one. No other part of the worker is reliable by
then: its main thread may hang in a call or a loop, and any lock may be held.
"""

import contextlib
import faulthandler
import math
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from functools import partial

import structlog

from app.platform.progress import Progress, Stillness
from app.platform.threads import background_thread
from app.serving.signals import STOP_SIGNALS
from app.work.drain import Drain

# A worker that hangs or does not end.
EXIT_HANGS = os.EX_SOFTWARE
# Supervisors of one step, such as a pipeline's watchdog, act first: this much earlier.
MARGIN_SECONDS = 30.0
# For the last report and the end of all threads after the drain. Less than supervisors wait.
END_SECONDS = 8.0
# How long the log line and the report may take before the process ends without them.
LAST_STEP_SECONDS = 3.0
POLL_SECONDS = 0.5
ARM_SECONDS = 10.0

log = structlog.get_logger(__name__)


class Deadman:
    """A thread that reads the beats of all lines of work. `start`, `stop` and `watch` are the main thread's to call.

    It also notices signals that the main thread does not handle, and arms a timer of the C library, which
    ends the process even if one thread never releases the interpreter.
    """

    def __init__(
        self,
        *,
        stall_seconds: float,
        drain: Drain,
        give_back: Callable[[bool], None],
        end: Callable[[int], None] = os._exit,
        touch: Callable[[], None] = lambda: None,
    ) -> None:
        """`give_back` releases the work in hand, if it can; its argument tells whether the work hangs.
        `touch` is called several times a second while nothing hangs."""
        self.still_seconds = stall_seconds + MARGIN_SECONDS
        self._drain = drain
        self._give_back = give_back
        self._end_process = end
        self.touch = touch
        self._watched: dict[str, Stillness] = {}
        self._asked_at: list[float] = []
        self._ended = threading.Event()
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._wakeup_before: int | None = None
        self._thread = background_thread(self._run, name="deadman")

    def watch(self, name: str, progress: Progress) -> None:
        """From now on, ends the process when this line of work goes without a beat for `still_seconds`."""
        self._watched = {**self._watched, name: Stillness(progress)}

    def start(self) -> None:
        # Python's handlers run between two steps of the main thread, which may never come; this does not wait
        # for them.
        self._wakeup_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._thread.start()

    def stop(self) -> None:
        """Does nothing when it was never started."""
        self._ended.set()
        if self._wakeup_before is not None:
            self._writer.send(b"\0")
            signal.set_wakeup_fd(self._wakeup_before)
            self._thread.join()
            faulthandler.cancel_dump_traceback_later()
        self._reader.close()
        self._writer.close()

    def end(self, write_line: Callable[[], None]) -> None:
        """Ends the process, after the log line, the tracebacks of all threads and the return of its work, but
        without waiting for those of them that hang."""
        is_stopping = self._drain.requested or bool(self._asked_at)
        _try_step(write_line)
        with contextlib.suppress(Exception):
            faulthandler.dump_traceback(sys.stderr)
        _try_step(lambda: self._give_back(not is_stopping))
        self._end_process(EXIT_HANGS)

    def _run(self) -> None:
        ticked_at, armed_at = time.monotonic(), -math.inf
        while not self._ended.is_set():
            if time.monotonic() - armed_at > ARM_SECONDS:
                armed_at = time.monotonic()
                with contextlib.suppress(Exception):
                    # Later than this thread would act.
                    faulthandler.dump_traceback_later(2 * self.still_seconds, exit=True)
            self._read_signals()
            self.touch()
            now = time.monotonic()
            # A process that was stopped in between is not at fault.
            seconds, ticked_at = min(now - ticked_at, 2 * POLL_SECONDS), now
            for name, stillness in self._watched.items():
                if stillness.tick(seconds) > self.still_seconds:
                    self.end(partial(_tell_of_hanging, name, round(stillness.seconds)))
                    return
            if now > self._over_at() + END_SECONDS:
                self.end(lambda: log.critical("worker_does_not_end"))
                return

    def _read_signals(self) -> None:
        if not select.select([self._reader], [], [], POLL_SECONDS)[0]:
            return
        numbers = self._reader.recv(256)
        self._asked_at += [time.monotonic()] * sum(
            number in (signal.SIGTERM, signal.SIGINT) for number in numbers
        )
        # Here, because a handler may interrupt a thread of the same process in the middle of a line of the log.
        for number in numbers:
            if number in STOP_SIGNALS:
                _try_step(partial(_tell_of_stopping, signal.Signals(number).name, self._drain.grace_seconds))

    def _over_at(self) -> float:
        """When the work in hand must be given back."""
        if self._drain.requested or not self._asked_at:
            return self._drain.over_at
        # The main thread has not handled the signal yet, or the second one, which means at once.
        return self._asked_at[1] if self._asked_at[1:] else self._asked_at[0] + self._drain.grace_seconds


def _tell_of_hanging(work: str, seconds: int) -> None:
    log.critical("worker_hangs", work=work, seconds=seconds)


def _tell_of_stopping(name: str, grace_seconds: float) -> None:
    log.info("worker_stopping", signal=name, grace_seconds=grace_seconds)


def _try_step(step: Callable[[], None]) -> None:
    """Runs a step that may raise, or hang while it waits for a lock."""

    def run() -> None:
        with contextlib.suppress(Exception):
            step()

    with contextlib.suppress(RuntimeError):  # no further thread can be started
        thread = background_thread(run, name="last-step")
        thread.start()
        thread.join(LAST_STEP_SECONDS)
