import json
import os
import socket
import stat

import pytest

from app.platform.errors import ConfigurationError
from app.serving.places import (
    listen,
    local_url,
    locked_data_directory,
    remove_ready_file,
    write_ready_file,
)


def test_port_zero_takes_a_free_port_that_the_url_names():
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert local_url(listener) == f"http://127.0.0.1:{port}"
        socket.create_connection(("127.0.0.1", port), timeout=5).close()


def test_connections_say_that_they_are_tcp_so_that_no_answer_is_held_back():
    with listen("127.0.0.1", 0) as listener:
        client = socket.create_connection(listener.getsockname(), timeout=5)
        connection, _address = listener.accept()
        with client, connection:
            # What asyncio looks at before it sets TCP_NODELAY.
            assert connection.proto == socket.IPPROTO_TCP


def test_listening_everywhere_the_url_is_one_that_can_be_reached():
    with listen("0.0.0.0", 0) as listener:
        assert local_url(listener).startswith("http://127.0.0.1:")


@pytest.mark.parametrize("address", ["::1", "::"])
def test_an_ipv6_address_stands_in_brackets(address):
    class Listener:  # a machine that runs the tests need not have IPv6
        def getsockname(self):
            return (address, 8000, 0, 0)

    assert local_url(Listener()) == "http://[::1]:8000"


def test_a_port_in_use_is_told_with_the_way_out():
    with listen("127.0.0.1", 0) as listener, pytest.raises(ConfigurationError, match="--port"):
        listen("127.0.0.1", listener.getsockname()[1])


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1"])
def test_an_address_that_is_not_ours_is_told(host):
    with pytest.raises(ConfigurationError, match="address"):
        listen(host, 0)


def test_the_ready_file_is_for_its_owner_alone(tmp_path):
    path = tmp_path / "ready.json"
    write_ready_file(path, url="http://127.0.0.1:1", key="secret")
    assert json.loads(path.read_text()) == {"url": "http://127.0.0.1:1", "pid": os.getpid(), "key": "secret"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_without_a_new_key_the_ready_file_has_none(tmp_path):
    write_ready_file(tmp_path / "ready", url="http://127.0.0.1:1", key=None)
    assert set(json.loads((tmp_path / "ready").read_text())) == {"url", "pid"}


def test_only_our_own_ready_file_is_removed(tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    write_ready_file(ours, url="http://127.0.0.1:1", key=None)
    theirs.write_text(json.dumps({"pid": os.getpid() + 1}))
    for path in (ours, theirs, tmp_path / "absent"):
        remove_ready_file(path)
    assert list(tmp_path.iterdir()) == [theirs]


def test_a_data_directory_serves_one_at_a_time(tmp_path):
    root = tmp_path / "deep" / "data"
    held = pytest.raises(ConfigurationError, match=f"process {os.getpid()}")
    with locked_data_directory(root), held, locked_data_directory(root):
        pass
    with locked_data_directory(root):
        assert stat.S_IMODE(root.stat().st_mode) == 0o700


def test_a_data_directory_that_cannot_be_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be used"), locked_data_directory(tmp_path / "file"):
        pass
