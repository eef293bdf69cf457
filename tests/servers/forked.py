"""`regen` as a fork of a process that has imported what it needs: most of a start's processor time is imports."""

import contextlib
import ctypes
import json
import multiprocessing
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any, NoReturn

from tests.servers.process import ServerProcess

# Of Linux's prctl.
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
POLL_SECONDS = 0.01
# What `ps` calls the processes that _fork_own_workers makes.
FORKER, FORKED_WORKER = "regen forker", "regen worker"
# Later ones ask who connects for a secret of the process that started them.
SHARES_FORK_SERVER = sys.version_info < (3, 14)
ADDRESS_VARIABLE = "TESTS_FORK_SERVER"

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.servers.preloaded"])


def start_fork_server() -> None:
    """Where the directory for temporary files changes afterwards: it keeps its socket there."""
    forkserver.ensure_running()


def share_fork_server() -> None:
    """Start one for all processes of tests that this process starts: each of their own would import everything anew."""
    if not SHARES_FORK_SERVER or ADDRESS_VARIABLE in os.environ:
        return
    start_fork_server()
    os.environ[ADDRESS_VARIABLE] = str(forkserver._forkserver._forkserver_address)  # type: ignore[attr-defined]


def use_shared_fork_server() -> None:
    """Take the one that the parent process shares, if it does."""
    if not SHARES_FORK_SERVER or (address := os.environ.get(ADDRESS_VARIABLE)) is None:
        return
    shared: Any = forkserver.ForkServer()
    shared._forkserver_address = address
    # Not the one that keeps it running: its parent holds that.
    _, shared._forkserver_alive_fd = os.pipe()
    shared.ensure_running = resource_tracker.ensure_running
    forkserver.connect_to_new_process = shared.connect_to_new_process
    forkserver.ensure_running = shared.ensure_running


class ForkedProcess:
    """What ServerProcess needs of subprocess.Popen, for a process that the fork server starts."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str],
        forks_workers: bool = True,
        directory: Path | None = None,
    ) -> None:
        """Without `forks_workers` its own workers are started as `regen` starts them, each by a Python of its own."""
        self._process = _context.Process(
            target=_run, args=(list(command), log, dict(environment), forks_workers, directory)
        )
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

    def __init__(
        self,
        arguments: Sequence[str | Path],
        *,
        log: Path,
        environment: Mapping[str, str],
        forks_workers: bool = True,
    ) -> None:
        self.log = log
        log.touch()
        self._process = ForkedProcess(
            [str(one) for one in arguments], log=log, environment=environment, forks_workers=forks_workers
        )


def _run(
    arguments: list[str],
    log: Path,
    environment: dict[str, str],
    forks_workers: bool,
    directory: Path | None,
) -> None:
    """What `regen ARGUMENTS` does, in this process."""
    os.setsid()
    if directory is not None:
        os.chdir(directory)
    nothing, output = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    # The fork server ignores it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    starts_workers = "serve" in arguments or arguments.count("--device") > 1
    if forks_workers and starts_workers and sys.platform == "linux":
        _fork_own_workers()
    _be_regen(arguments, environment)


def _be_regen(arguments: list[str], environment: Mapping[str, str]) -> None:
    from worker import celery_app, celery_presence

    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    sys.argv = ["regen", *arguments]
    # A worker that is told to end looks once a second, in two threads.
    celery_app.TICK_SECONDS = celery_presence.POLL_SECONDS = 0.1
    if "serve" in arguments:
        _copy_new_databases()
    from app.cli import main

    main()


def _copy_new_databases() -> None:
    """A new SQLite database of this process is a copy of a migrated one. Only for a process that is alone with its data
    directory, as `regen serve` is: another one might have begun to fill the database.
    """
    from app import migrations
    from tests.servers.preloaded import MIGRATED_DATABASE

    upgrade = migrations.upgrade

    def copy_or_upgrade(database: Any) -> None:
        if database.is_sqlite and migrations.position(database) is migrations.Position.EMPTY:
            with (
                contextlib.closing(sqlite3.connect(":memory:")) as migrated,
                contextlib.closing(database.engine.raw_connection()) as new,
            ):
                migrated.deserialize(MIGRATED_DATABASE)
                migrated.backup(new.driver_connection)
        upgrade(database)

    migrations.upgrade = copy_or_upgrade


def _fork_own_workers() -> None:
    """The workers that this process starts are forks from now on, of a child that never has a second thread."""
    from app.serving import server, workers
    from app.serving.child import ChildProcess

    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        Path("/proc/self/comm").write_text(FORKER)
        ours.close()
        _fork_workers(theirs)
    theirs.close()
    requests = ours.makefile("rw")

    class ForkedWorker(ChildProcess):
        def __init__(self, command: Sequence[str], *, environment: Mapping[str, str]) -> None:
            json.dump([command[command.index("worker") :], dict(environment)], requests)
            requests.write("\n")
            requests.flush()
            self._process = _OwnFork(int(requests.readline()))  # type: ignore[assignment]
            self.started_at = time.monotonic()
            self._terminated = False

    for module in (server, workers):
        module.ChildProcess = ForkedWorker  # type: ignore[attr-defined]


def _fork_workers(requests: socket.socket) -> NoReturn:
    """Starts what it is asked for, until its parent ends: each as a child of its parent, which collects orphans."""
    parent = os.getppid()
    for line in requests.makefile("r"):
        told, telling = os.pipe()
        between = os.fork()
        if between:
            # Only then is it the parent's child, for which the parent may wait.
            os.waitpid(between, 0)
            requests.sendall(os.read(told, 32))
            os.close(told)
            os.close(telling)
            continue
        pid = os.fork()
        if pid:
            os.write(telling, f"{pid}\n".encode())
            os._exit(0)
        os.close(told)
        os.close(telling)
        Path("/proc/self/comm").write_text(FORKED_WORKER)
        requests.close()
        os.setsid()
        while os.getppid() != parent:
            time.sleep(POLL_SECONDS)
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        status = 1
        try:
            _be_regen(*json.loads(line))
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    os._exit(0)


class _OwnFork:
    """What ChildProcess needs of subprocess.Popen, for a child that another process has forked."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._status: int | None = None
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        with self._lock:
            if self._status is None:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self._status = os.waitstatus_to_exitcode(status)
            return self._status

    def terminate(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)

    def wait(self, timeout: float | None = None) -> int:
        over_at = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            if over_at is not None and time.monotonic() > over_at:
                raise subprocess.TimeoutExpired("regen worker", timeout or 0.0)
            time.sleep(POLL_SECONDS)
        return status
