"""A child process that ends with us, whatever ends us."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from app.platform.errors import ConfigurationError
from app.platform.media import launcher

# The launcher sets a limit in any case; this one is larger than any address space.
NO_MEMORY_LIMIT = 2**63 - 1
PARENT_POLL_SECONDS = 1.0
PARENT_GONE_GRACE_SECONDS = 10.0
EXIT_PARENT_GONE = 1


class ChildProcess:
    """A started process in a session of its own, so that a Ctrl-C in the terminal reaches us alone.

    On Linux the kernel kills it when the *thread* that made this object ends: that thread must live as long as the
    process is wanted.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        output: IO[bytes] | None = None,
        directory: Path | None = None,
    ) -> None:
        """Start `command`. Its stdout and stderr go to `output`, else where ours go. Raises ConfigurationError."""
        launch = [sys.executable, "-I", "-S", str(Path(launcher.__file__).resolve())]
        try:
            self._process = subprocess.Popen(
                [*launch, str(NO_MEMORY_LIMIT), str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(environment),
                cwd=directory,
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
        """SIGTERM, once unless it shall be sent `again`; returns at once."""
        if self.status is None and (again or not self._terminated):
            self._terminated = True
            self._process.terminate()

    def stop(self, *, grace_seconds: float) -> None:
        """SIGTERM, then SIGKILL for the whole group after `grace_seconds`; returns when it has ended."""
        self.terminate()
        try:
            self._process.wait(timeout=max(0.0, grace_seconds))
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL for the whole group; returns when it has ended."""
        if self.status is None:
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()


def end_with_parent(
    parent_pid: int, *, get_parent: Callable[[], int] = os.getppid, poll_seconds: float = PARENT_POLL_SECONDS
) -> threading.Thread:
    """Watch for the end of our parent and then end this process: SIGTERM first, soon after that for good.

    For systems whose kernel does not do it.
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
