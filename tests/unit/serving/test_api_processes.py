"""The parent of several API processes, with children that end at once."""

import os
import time

import pytest

from app.platform.settings import Settings
from app.serving import api_processes
from app.serving.api_processes import ApiProcesses, new_run_directory
from app.serving.child import ChildProcess
from app.serving.listener import listen
from app.serving.signals import StopSignals


@pytest.fixture
def children(monkeypatch):
    """The command lines of those that were started. Each leaves a file of gauges, and ends as set up wrong."""
    commands = []

    class Ending(ChildProcess):
        def __init__(self, command, *, environment, descriptors):
            commands.append(command)
            gauges = f"touch {environment[api_processes.METRICS_VARIABLE]}/gauge_livesum_$$.db"
            super().__init__(
                ["/bin/sh", "-c", f"{gauges}; exit {os.EX_CONFIG}"],
                environment=environment,
                descriptors=descriptors,
            )

    monkeypatch.setattr(api_processes, "ChildProcess", Ending)
    return commands


def test_when_none_can_start_the_server_ends_without_being_ready(tmp_path, children):
    settings = Settings(data_dir=tmp_path, api_processes=2)
    with new_run_directory(settings), listen("127.0.0.1", 0) as listener:
        api = ApiProcesses(settings, listener)
        deadline = time.monotonic() + 30
        while not all(child.misconfigured for child in api.children):
            assert time.monotonic() < deadline
            for child in api.children:
                child.supervise()
            time.sleep(0.01)
        api.serve(StopSignals())
        assert not api.started
        assert listener.fileno() == -1
        assert [command[command.index("--number") + 1] for command in children] == ["0", "1"]
        # What they had in hand counts no longer.
        assert list((settings.run_dir / "metrics").iterdir()) == []
    assert not settings.run_dir.exists()


def test_a_requested_stop_closes_the_socket(tmp_path):
    settings = Settings(data_dir=tmp_path, api_processes=2)
    signals = StopSignals()
    signals.request()
    with listen("127.0.0.1", 0) as listener:
        ApiProcesses(settings, listener).serve(signals)
        assert listener.fileno() == -1
