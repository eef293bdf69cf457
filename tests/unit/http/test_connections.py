"""Which connections are closed when there are too many, and for how long a slow client is waited for."""

import asyncio
from dataclasses import replace

import pytest

from app.http.connections import RESERVED_FILES, ConnectionLimits, Connections, Patience, peer_of
from app.platform.settings import Settings

LIMITS = replace(ConnectionLimits.from_settings(Settings()), most=4, most_per_peer=2)


class FakeConnection:
    def __init__(self) -> None:
        self.is_closed = False

    def close_idle(self) -> None:
        self.is_closed = True


def opened(connections: Connections, *hosts: str) -> list[FakeConnection]:
    made = [FakeConnection() for _ in hosts]
    for connection, host in zip(made, hosts, strict=True):
        connections.add(connection, host=host)
    return made


def closed(connections: list[FakeConnection]) -> list[bool]:
    return [connection.is_closed for connection in connections]


def test_past_the_limit_the_longest_idle_makes_room():
    connections = Connections(LIMITS)
    made = opened(connections, "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4")
    connections.note_request(made[0])
    connections.note_request(made[1])
    connections.note_idle(made[1])

    made += opened(connections, "10.0.0.5", "10.0.0.6")

    assert closed(made) == [False, False, True, True, False, False]


def test_a_newcomer_stays_when_all_are_busy_and_the_next_waits_outside():
    async def scenario() -> None:
        connections = Connections(LIMITS)
        made = opened(connections, *(f"10.0.0.{number}" for number in range(5)))
        made[0].is_closed = False
        for connection in made:
            connections.note_request(connection)
        waiting = asyncio.ensure_future(connections.wait_for_room())
        await asyncio.sleep(0)
        assert not waiting.done()
        connections.remove(made[0])
        await asyncio.wait_for(waiting, 1)

    asyncio.run(scenario())


def test_a_peer_past_its_share_gives_up_its_own():
    connections = Connections(LIMITS)
    made = opened(connections, "10.0.0.9", "10.0.0.1", "10.0.0.1")
    connections.note_request(made[1])

    made += opened(connections, "10.0.0.1")

    assert closed(made) == [False, False, True, False]
    connections.note_request(made[3])
    made += opened(connections, "10.0.0.1")
    # Its others are busy: the newest goes.
    connections.remove(made[2])
    assert closed(made) == [False, False, True, False, True]


@pytest.mark.parametrize(
    ("host", "peer"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_what_counts_as_one_peer(host, peer):
    assert peer_of(host) == peer


@pytest.mark.parametrize(
    ("open_files", "most"), [(None, 4000), (RESERVED_FILES + 8000, 4000), (256, 53), (100, 1)]
)
def test_open_files_bound_the_connections(open_files, most):
    limits = ConnectionLimits.from_settings(Settings(), open_files=open_files)

    assert (limits.most, limits.most_per_peer) == (most, max(1, most // 2))


def test_connections_outlive_the_idle_times_of_clients_and_load_balancers():
    """AWS' and nginx' 60 s, Go's 90 s, Caddy's 120 s."""
    assert Settings().keep_alive_seconds > 120


def test_patience_is_used_up_by_waiting_and_restored_by_bytes():
    patience = Patience(replace(LIMITS, patience_seconds=10.0, bytes_per_second=100))

    patience.waited(4, passed_bytes=0)
    assert patience.seconds_left == 6
    patience.waited(1, passed_bytes=300)
    assert patience.seconds_left == 8
    patience.waited(1, passed_bytes=10**9)
    assert patience.seconds_left == 10
    for _ in range(100):
        patience.waited(1, passed_bytes=100)
    assert patience.seconds_left == 10


def test_without_a_rate_any_byte_restores_patience():
    patience = Patience(replace(LIMITS, patience_seconds=10.0, bytes_per_second=0))

    patience.waited(9, passed_bytes=10)

    assert patience.seconds_left == 10
