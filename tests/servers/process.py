"""Server programs that tests start: on loopback, on free ports, in private directories, stopped by process id."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.servers.forked import ForkedProcess

STOP_SECONDS = 20.0
# For what comes about at once on a machine that is at rest: one under test may be slow.
SOON_SECONDS = 30.0


def free_port() -> int:
    """A TCP port of loopback that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def accepts(port: int) -> bool:
    """Whether somebody listens on that port of loopback."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def is_alive(pid: int) -> bool:
    """Whether that process runs. A zombie is dead, though its parent may not have looked yet."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return sys.platform != "linux"  # elsewhere there is no such file, and the signal is all that tells
    return state != "Z"


def pause_after(waited_seconds: float) -> float:
    """How many seconds to wait until the next look at a server: the more, the longer it takes, since each look takes
    processor time from what is waited for.
    """
    return min(0.2, max(0.05, waited_seconds / 20))


def wait_until(
    condition: Callable[[], object],
    *,
    seconds: float = SOON_SECONDS,
    what: str = "it comes about",
    pause_seconds: float | None = None,
) -> None:
    """Poll until `condition` is true: each `pause_seconds`, for what may pass soon; by default as `pause_after` says.
    Fails the test after that many seconds.
    """
    began = time.monotonic()
    while not condition():
        waited = time.monotonic() - began
        if waited > seconds:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(pause_after(waited) if pause_seconds is None else pause_seconds)


class ServerProcess:
    """One started program and the file that its output goes to."""

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
        user: str | None = None,
    ) -> None:
        """`environment` is the whole of it; ours unless given. `user` is whom a root process runs it as."""
        self.log = log
        self._process: subprocess.Popen[bytes] | ForkedProcess
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=None if environment is None else dict(environment),
                cwd=directory,
                user=user,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def status(self) -> int | None:
        """The exit status (negative: the signal), or None while it runs."""
        return self._process.poll()

    def wait_until(
        self,
        condition: Callable[[], object],
        *,
        seconds: float,
        what: str,
        pause_seconds: float | None = None,
    ) -> None:
        """Poll until `condition` is true; fails with the log when the program ends first, or after `seconds`."""

        def look() -> bool:
            if condition():
                return True
            assert self.status is None, f"ended with {self.status} before {what}:\n{self.tail()}"
            return False

        try:
            wait_until(look, seconds=seconds, what=what, pause_seconds=pause_seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.tail()}") from None

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-8000:]

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def stop(self, *, with_signal: int = signal.SIGTERM, seconds: float = STOP_SECONDS) -> int:
        """End it and return its exit status: by `with_signal`, after `seconds` by SIGKILL for its whole group."""
        if self._process.poll() is None:
            self._process.send_signal(with_signal)
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """SIGKILL for the process and its group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
