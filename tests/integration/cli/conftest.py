import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time

import pytest

from tests.servers.forked import FORKER, ForkedProcess, start_fork_server

START_SECONDS = 60


class Server:
    """A `regen serve` as a process of its own. `forks_workers`: as for ForkedProcess."""

    def __init__(self, data_directory, ready_file, *arguments, environment=(), forks_workers=True):
        self.data_directory = data_directory
        self.ready_file = ready_file
        self.output_path = ready_file.with_suffix(".log")
        self.output_path.touch()
        self.process = ForkedProcess(
            [
                *("serve", "--port", "0", "--data-dir", str(data_directory)),
                *("--ready-file", str(ready_file), *arguments),
            ],
            log=self.output_path,
            environment={**os.environ, **dict(environment)},
            forks_workers=forks_workers,
        )

    def wait_until_ready(self):
        deadline = time.monotonic() + START_SECONDS
        while not self.ready_file.exists():
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.02)
        return json.loads(self.ready_file.read_text())

    @property
    def output(self):
        return self.output_path.read_text()

    def descendants(self):
        """The processes below the server: process ids, names and command lines."""
        listed = subprocess.run(
            ["ps", "-axwwo", "pid=,ppid=,stat=,comm=,args="], capture_output=True, text=True, check=True
        )
        rows = [line.split(None, 3) for line in listed.stdout.splitlines() if FORKER not in line]
        found, parents = {}, {str(self.process.pid)}
        while parents:
            children = {row[0]: row[3] for row in rows if row[1] in parents and not row[2].startswith("Z")}
            found |= children
            parents = set(children)
        return {int(pid): command for pid, command in found.items()}


@contextlib.contextmanager
def serving(directory):
    """Starts servers on one data directory, and kills what is left of them.

    The sockets of killed ones go with a temporary directory of their own, which is short, as their paths must be.
    """
    start_fork_server()
    servers = []
    sockets = tempfile.mkdtemp(prefix="regen-test-")

    def start(*arguments, **options):
        ready_file = directory / f"ready-{len(servers)}.json"
        servers.append(Server(directory / "data", ready_file, *arguments, **options))
        return servers[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", sockets)
        patch.setattr(tempfile, "tempdir", sockets)
        yield start
        for server in servers:
            server.process.send_signal(signal.SIGKILL)
            server.process.wait()
    shutil.rmtree(sockets)


@pytest.fixture
def serve(tmp_path):
    """Starts servers on one data directory; see `serving`."""
    with serving(tmp_path) as start:
        yield start
