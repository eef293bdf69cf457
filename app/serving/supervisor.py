"""Restarts the child processes of `regen serve` and `regen worker`, and stops them in order."""

import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence

import structlog

from app.platform.errors import RegenError
from app.platform.retry_policies import CHILD_RESTART, RetryRow
from app.serving.child import ChildProcess

log = structlog.get_logger(__name__)

HEALTHY_SECONDS = 60.0
POLL_SECONDS = 0.2
# In addition to the time in which a worker may finish its current work: more than what its deadman takes.
WORKER_GRACE_SECONDS = 15.0
BROKER_GRACE_SECONDS = 5.0


class SupervisedProcess:
    """One child process, started by `start` and restarted when it ends. For one thread, which outlives the child.

    A child that lived for a minute starts the pauses anew. Exit status EX_CONFIG means that the machine is set up
    wrong: the child is restarted only after long pauses, in case an operator has corrected that.
    """

    def __init__(
        self,
        name: str,
        start: Callable[[], ChildProcess],
        *,
        grace_seconds: float,
        on_end: Callable[[int], None] = lambda _pid: None,
    ) -> None:
        """`on_end` is called with the process id of a child that has ended by itself."""
        self.name = name
        self._start = start
        self._on_end = on_end
        self._grace_seconds = grace_seconds
        self._ended_with_config_error = False
        self._restarts = RetryRow(CHILD_RESTART)
        self._child: ChildProcess | None = None
        self._start_at = time.monotonic()

    @property
    def misconfigured(self) -> bool:
        """Whether the child ended with EX_CONFIG and no later one has run for a minute."""
        started_at = math.inf if self._child is None else self._child.started_at
        return self._ended_with_config_error and time.monotonic() - started_at < HEALTHY_SECONDS

    def supervise(self) -> None:
        """Check whether the child has ended, and start it when due. Call it often."""
        if self._child is not None and self._child.status is not None:
            lived_seconds = time.monotonic() - self._child.started_at
            self._on_end(self._child.pid)
            status, self._child = self._child.status, None
            self._ended_with_config_error = status == os.EX_CONFIG
            self._plan_start(lived_seconds, status=status)
        if self._child is None and time.monotonic() >= self._start_at:
            try:
                self._child = self._start()
            except (RegenError, OSError) as error:
                self._plan_start(0.0, error=str(error), detail=getattr(error, "detail", None))

    @property
    def is_running(self) -> bool:
        return self._child is not None and self._child.status is None

    def terminate(self, *, again: bool = False) -> None:
        """Ask the child to end; returns at once. Asked `again`, a worker releases its current work."""
        if self._child is not None:
            self._child.terminate(again=again)

    def stop(self, *, asked_at: float | None = None) -> None:
        """Stop the child within `grace_seconds` from now, or from `asked_at`; returns when it has ended."""
        if self._child is not None:
            waited_seconds = 0.0 if asked_at is None else time.monotonic() - asked_at
            self._child.stop(grace_seconds=self._grace_seconds - waited_seconds)
            self._child = None

    def is_within_grace(self, asked_at: float) -> bool:
        """Whether the child still runs within its grace period."""
        return self.is_running and time.monotonic() - asked_at < self._grace_seconds

    def adopt(self, child: ChildProcess) -> None:
        """Supervise a child that is already running."""
        self._child = child

    def _plan_start(self, lived_seconds: float, **facts: object) -> None:
        if lived_seconds >= HEALTHY_SECONDS:
            self._restarts.reset()
        pause_seconds = self._restarts.next_pause()
        if self._ended_with_config_error:
            pause_seconds = CHILD_RESTART.longest_seconds
        log.warning("child_ended", child=self.name, restart_in_seconds=pause_seconds, **facts)
        self._start_at = time.monotonic() + pause_seconds


def supervise_until(stopping: Callable[[], bool], children: Sequence[SupervisedProcess]) -> None:
    """Supervise the children until `stopping`, which is polled, returns true."""
    while not stopping():
        for child in children:
            child.supervise()
        time.sleep(POLL_SECONDS)


def stop_all(children: Iterable[SupervisedProcess], *, hurry: Callable[[], bool] = lambda: False) -> None:
    """Stop the children concurrently. Once `hurry`, which is polled, returns true, they are asked again."""
    children = list(children)
    asked_at = time.monotonic()
    for child in children:
        child.terminate()
    while any(child.is_within_grace(asked_at) for child in children):
        if hurry():
            for child in children:
                child.terminate(again=True)
            break
        time.sleep(POLL_SECONDS)
    for child in children:
        child.stop(asked_at=asked_at)


class Supervisor(threading.Thread):
    """The thread that starts and supervises the children of `regen serve`: brokers, workers, API processes.

    It ends after them, because on Linux a child is killed when the thread that started it ends. `stopping` is polled
    rather than waited for, because a signal handler, which must not take a lock, sets it.
    """

    def __init__(
        self,
        *,
        brokers: Sequence[SupervisedProcess],
        users: Sequence[SupervisedProcess],
        stopping: Callable[[], bool],
        hurrying: Callable[[], bool],
        give_up: Callable[[], None],
    ) -> None:
        """`users` need the brokers: they are stopped first, at once when `hurrying`. `give_up` stops the server if this
        thread fails."""
        super().__init__(name="supervisor")
        self._give_up = give_up
        self._brokers = brokers
        self._users = users
        self._stopping = stopping
        self._hurrying = hurrying
        self._api_has_stopped = threading.Event()

    def api_has_stopped(self) -> None:
        """Allow this thread to stop the broker."""
        self._api_has_stopped.set()

    def run(self) -> None:
        try:
            supervise_until(self._stopping, [*self._brokers, *self._users])
        except Exception:
            log.exception("supervisor_failed")
            self._give_up()
        finally:
            stop_all(self._users, hurry=self._hurrying)
            self._api_has_stopped.wait()
            stop_all(self._brokers)
