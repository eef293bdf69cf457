import os
import socket

import pytest

from app.platform.errors import ConfigurationError
from app.serving.listener import inherited, listen, local_url


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


def test_one_of_a_parent_is_as_if_it_were_opened_here_and_goes_no_further():
    with listen("127.0.0.1", 0) as listener:
        descriptor = os.dup(listener.fileno())
        os.set_inheritable(descriptor, True)
        with inherited(descriptor) as found:
            assert local_url(found) == local_url(listener)
            assert (found.family, found.proto) == (socket.AF_INET, socket.IPPROTO_TCP)
            assert found.fileno() == descriptor and not os.get_inheritable(descriptor)


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
