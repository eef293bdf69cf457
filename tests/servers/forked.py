"""`regen` as a fork of a process that has imported what it needs: most of a start's processor time is imports."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.servers.process import ServerProcess

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["app.cli.application", "app.serving.server", "worker.celery_app", "worker.work_units"]
)


class ForkedProcess:
    """What ServerProcess needs of subprocess.Popen, for a process that the fork server starts."""

    def __init__(self, command: Sequence[str], *, log: Path, environment: Mapping[str, str]) -> None:
        self._process = _context.Process(target=_run, args=(list(command), log, dict(environment)))
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self._process.exitcode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired("regen", timeout)
        return self._process.exitcode


class ForkedServerProcess(ServerProcess):
    """`regen ARGUMENTS`. A group and a session of its own, its output in `log`, and nothing but `environment`."""

    def __init__(self, arguments: Sequence[str | Path], *, log: Path, environment: Mapping[str, str]) -> None:
        self.log = log
        log.touch()
        self._process = ForkedProcess([str(one) for one in arguments], log=log, environment=environment)


def _run(arguments: list[str], log: Path, environment: dict[str, str]) -> None:
    """What `regen ARGUMENTS` does, in this process."""
    os.setsid()
    nothing, output = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environment)
    # The fork server ignores it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["regen", *arguments]
    from app.cli import main

    main()
