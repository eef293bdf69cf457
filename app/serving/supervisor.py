"""Keeps the children of `regen serve` alive, and ends them in order."""

import threading
import time
from collections.abc import Callable

import structlog

from app.core.errors import RegenError
from app.serving.child import ChildProcess

log = structlog.get_logger(__name__)

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
HEALTHY_SECONDS = 60.0
POLL_SECONDS = 0.2
WORKER_GRACE_SECONDS = 10.0
BROKER_GRACE_SECONDS = 5.0


class RestartPauses:
    """How long to wait before a process is started again: 1, 2, 4 .. 30 s; from 1 s after a healthy minute."""

    def __init__(self) -> None:
        self._next_seconds = FIRST_PAUSE_SECONDS

    def after(self, *, lived_seconds: float) -> float:
        """The pause, in seconds, after a process that lived that long."""
        if lived_seconds >= HEALTHY_SECONDS:
            self._next_seconds = FIRST_PAUSE_SECONDS
        pause = self._next_seconds
        self._next_seconds = min(2 * pause, LONGEST_PAUSE_SECONDS)
        return pause


class KeptAlive:
    """One child, started by `start`, and again when it dies. For one thread only, which outlives the child."""

    def __init__(self, name: str, start: Callable[[], ChildProcess], *, grace_seconds: float) -> None:
        self.name = name
        self._start = start
        self._grace_seconds = grace_seconds
        self._pauses = RestartPauses()
        self._child: ChildProcess | None = None
        self._start_at = time.monotonic()

    def tend(self) -> None:
        """Start the child when it is due; notice its end. Call it often."""
        if self._child is not None and self._child.status is not None:
            lived_seconds = time.monotonic() - self._child.started_at
            status, self._child = self._child.status, None
            self._plan_start(lived_seconds, status=status)
        if self._child is None and time.monotonic() >= self._start_at:
            try:
                self._child = self._start()
            except (RegenError, OSError) as error:
                self._plan_start(0.0, error=str(error), detail=getattr(error, "detail", None))

    def stop(self) -> None:
        if self._child is not None:
            self._child.stop(grace_seconds=self._grace_seconds)
            self._child = None

    def adopt(self, child: ChildProcess) -> None:
        """Take over a child that was started already."""
        self._child = child

    def _plan_start(self, lived_seconds: float, **facts: object) -> None:
        pause_seconds = self._pauses.after(lived_seconds=lived_seconds)
        log.warning("child_ended", child=self.name, restart_in_seconds=pause_seconds, **facts)
        self._start_at = time.monotonic() + pause_seconds


class Supervisor(threading.Thread):
    """The thread that starts and tends the children.

    It ends after they have, because on Linux a child is killed when the thread that started it ends. `stopping` is
    polled, not waited for: what sets it is a signal handler, where no lock may be taken.
    """

    def __init__(
        self,
        *,
        broker: KeptAlive | None,
        worker: KeptAlive | None,
        stopping: Callable[[], bool],
        give_up: Callable[[], None],
    ) -> None:
        """`give_up` stops the server, when this thread cannot go on."""
        super().__init__(name="supervisor")
        self._give_up = give_up
        self._broker = broker
        self._worker = worker
        self._stopping = stopping
        self._api_has_stopped = threading.Event()

    def api_has_stopped(self) -> None:
        """Nothing needs the broker any more."""
        self._api_has_stopped.set()

    def run(self) -> None:
        children = [child for child in (self._broker, self._worker) if child is not None]
        try:
            while not self._stopping():
                for child in children:
                    child.tend()
                time.sleep(POLL_SECONDS)
        except Exception:
            log.exception("supervisor_failed")
            self._give_up()
        finally:
            if self._worker is not None:
                self._worker.stop()
            self._api_has_stopped.wait()
            if self._broker is not None:
                self._broker.stop()
