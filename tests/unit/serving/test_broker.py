import os
import shutil
import signal
import socket
import stat
import tempfile
from pathlib import Path

import pytest

from app.platform.errors import ConfigurationError
from app.serving.broker import answers, remove_socket, start_broker


@pytest.fixture
def socket_path():
    # Not below tmp_path: a socket's path is short.
    directory = tempfile.mkdtemp(prefix="regen-test-")
    yield Path(directory) / "room" / "broker.sock"
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def start(socket_path):
    children = []

    def start_one():
        children.append(start_broker(socket_path))
        return children[-1]

    yield start_one
    for child in children:
        child.kill()


def ask(socket_path, *words):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(socket_path))
        connection.sendall(" ".join(words).encode() + b"\r\n")
        return connection.recv(4096).decode()


def test_the_broker_answers_on_a_private_socket_and_nowhere_else(start, socket_path):
    start()
    assert answers(socket_path)
    assert stat.S_IMODE(socket_path.parent.stat().st_mode) == 0o700
    assert ask(socket_path, "CONFIG", "GET", "port").split()[-1] == "0"


def test_the_broker_keeps_messages_in_memory_and_drops_none(start, socket_path):
    start()
    assert ask(socket_path, "CONFIG", "GET", "maxmemory-policy").split()[-1] == "noeviction"
    assert ask(socket_path, "CONFIG", "GET", "appendonly").split()[-1] == "no"
    assert ask(socket_path, "CONFIG", "GET", "save").split()[-1] == "$0"


def test_a_socket_left_by_a_killed_broker_is_replaced(start, socket_path):
    os.kill(start().pid, signal.SIGKILL)
    assert socket_path.exists()
    start()
    assert answers(socket_path)


def test_a_broker_left_running_is_shut_down(start, socket_path):
    stale = start()
    fresh = start()
    assert stale.status == 0
    assert fresh.status is None
    assert answers(socket_path)


def test_a_directory_that_others_may_enter_is_closed_to_them(start, socket_path):
    socket_path.parent.mkdir(mode=0o777)
    socket_path.parent.chmod(0o777)
    start()
    assert stat.S_IMODE(socket_path.parent.stat().st_mode) == 0o700


def test_a_link_in_place_of_the_directory_is_refused(start, socket_path, tmp_path):
    socket_path.parent.symlink_to(tmp_path)
    with pytest.raises(ConfigurationError, match="belongs to another user"):
        start()
    assert list(tmp_path.iterdir()) == []


def test_another_users_directory_is_refused(start, socket_path, monkeypatch):
    socket_path.parent.mkdir(mode=0o700)
    owner = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    with pytest.raises(ConfigurationError, match="belongs to another user"):
        start()


def test_a_path_too_long_for_a_socket_is_told(socket_path):
    with pytest.raises(ConfigurationError, match="TMPDIR"):
        start_broker(socket_path.parent.parent / ("x" * 100) / "broker.sock")


def test_a_stopped_broker_leaves_nothing(start, socket_path):
    start().stop(grace_seconds=5)
    remove_socket(socket_path)
    assert not socket_path.parent.exists()
