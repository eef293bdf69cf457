"""Starts workers at a tenth of the price: a process that has loaded torch and all of ours, and forks.

What is forked is a whole `regen worker`, but for what loading took. Not for GPUs: CUDA does not survive a fork.
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.servers.process import ServerProcess

POLL_SECONDS = 0.02
# Of Linux's prctl.
PR_SET_PDEATHSIG = 1


class ForkServer:
    """`environment` is that of all its children. For one thread only."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.fork_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(environment),
            text=True,
            start_new_session=True,
        )
        self._asked = 0

    def ask(self, **order: object) -> int | None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._asked += 1
        self._process.stdin.write(json.dumps({"number": self._asked, **order}) + "\n")
        self._process.stdin.flush()
        # A signal may have kept an earlier answer from being read: it is no answer to this order.
        while (answer := json.loads(self._process.stdout.readline()))["number"] != self._asked:
            pass
        found: int | None = answer["found"]
        return found

    def close(self) -> None:
        """Its children end with it, also those whose start nobody learned of."""
        self._process.kill()
        self._process.wait()


class ForkedProcess(ServerProcess):
    """A command of `regen` in a process of its own."""

    def __init__(self, server: ForkServer, arguments: Sequence[str | Path], *, log: Path) -> None:
        self.log = log
        log.touch()
        self._process = _Child(server, [str(part) for part in arguments], log)  # type: ignore[assignment]


class _Child:
    """As much of Popen as ServerProcess needs."""

    def __init__(self, server: ForkServer, arguments: list[str], log: Path) -> None:
        self._server = server
        pid = server.ask(arguments=arguments, log=str(log))
        assert pid is not None
        self.pid = pid
        self._status: int | None = None

    def poll(self) -> int | None:
        if self._status is None:
            self._status = self._server.ask(status_of=self.pid)
        return self._status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def wait(self, timeout: float = float("inf")) -> int:
        deadline = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("a forked worker", timeout)
            time.sleep(POLL_SECONDS)
        return status


def main() -> None:
    """Orders come as lines of JSON, and so do the answers."""
    import app.cli.application
    import app.cli.serving  # noqa: F401
    import worker.celery_app  # noqa: F401  (with it, torch)
    from app.cli import main as regen

    statuses: dict[int, int] = {}
    while line := sys.stdin.readline():
        order = json.loads(line)
        if "status_of" in order:
            with contextlib.suppress(ChildProcessError):
                pid, status = os.waitpid(order["status_of"], os.WNOHANG)
                if pid:
                    statuses[pid] = os.waitstatus_to_exitcode(status)
            answer(order, statuses.get(order["status_of"]))
            continue
        pid = os.fork()
        if pid == 0:
            os.setsid()
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            log = os.open(order["log"], os.O_WRONLY | os.O_APPEND)
            nothing = os.open(os.devnull, os.O_RDONLY)
            for here, there in ((nothing, 0), (log, 1), (log, 2)):
                os.dup2(here, there)
            sys.argv = ["regen", *order["arguments"]]
            regen()
            return
        answer(order, pid)


def answer(order: Mapping[str, Any], found: int | None) -> None:
    print(json.dumps({"number": order["number"], "found": found}), flush=True)


if __name__ == "__main__":
    main()
