"""A child process that ends with its parent, even if the parent is killed."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from app.platform.errors import ConfigurationError
from app.platform.media.confinement import OFF, Confinement

# The launcher always sets a limit of memory; this one is larger than any address space.
NO_MEMORY_LIMIT = 2**63 - 1
NO_CPU_LIMIT = 0
PARENT_POLL_SECONDS = 1.0
PARENT_GONE_GRACE_SECONDS = 10.0
EXIT_PARENT_GONE = 1


class ChildProcess:
    """A started process in its own session, so that Ctrl-C in the terminal reaches only the parent.

    On Linux the kernel kills it when the *thread* that made this object ends: that thread must live as long as the
    process is needed.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        output: IO[bytes] | None = None,
        directory: Path | None = None,
        descriptors: Sequence[int] = (),
    ) -> None:
        """Start `command`. `output` receives its stdout and stderr, by default inherited; it inherits `descriptors`
        under their numbers. Raises ConfigurationError."""
        confinement = Confinement(NO_MEMORY_LIMIT, NO_CPU_LIMIT, os.getpid(), OFF, (), ())
        try:
            self._process = subprocess.Popen(
                confinement.launching(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(environment),
                cwd=directory,
                pass_fds=descriptors,
                start_new_session=True,
            )
        except OSError as error:
            raise ConfigurationError(
                f"{command[0]} could not be started: {error.strerror}.", detail=str(error)
            ) from error
        self.started_at = time.monotonic()
        self._terminated = False

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def status(self) -> int | None:
        """The exit status (negative: the signal), or None while it runs."""
        return self._process.poll()

    def terminate(self, *, again: bool = False) -> None:
        """Send SIGTERM, once unless `again`; returns at once."""
        if self.status is None and (again or not self._terminated):
            self._terminated = True
            self._process.terminate()

    def stop(self, *, grace_seconds: float) -> None:
        """Send SIGTERM, and SIGKILL to the process group after `grace_seconds`; returns when the process has ended."""
        self.terminate()
        try:
            self._process.wait(timeout=max(0.0, grace_seconds))
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Send SIGKILL to the process group; returns when the process has ended."""
        if self.status is None:
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()


def end_with_parent(
    parent_pid: int, *, get_parent: Callable[[], int] = os.getppid, poll_seconds: float = PARENT_POLL_SECONDS
) -> threading.Thread:
    """Watch the parent in a thread; after its end, send this process SIGTERM, and exit after a grace period.

    For systems whose kernel does not end a child with its parent.
    """

    def watch() -> None:
        while get_parent() == parent_pid:
            time.sleep(poll_seconds)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(PARENT_GONE_GRACE_SECONDS)
        os._exit(EXIT_PARENT_GONE)

    thread = threading.Thread(target=watch, name="parent-watch", daemon=True)
    thread.start()
    return thread
