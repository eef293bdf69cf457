"""`regen worker` with several devices: processes that are kept alive, and end together."""

import contextlib
import os
import random
import signal
import socket
import subprocess
from collections.abc import Callable

import httpx

from tests.integration.worker.conftest import START_SECONDS, Workplace, lines, wait_ready
from tests.servers.broker import BrokerServer
from tests.servers.forked import FORKER
from tests.servers.process import ServerProcess, is_alive, wait_until

MakeWorkplace = Callable[..., Workplace]


def children(parent: ServerProcess) -> list[int]:
    listed = subprocess.run(
        ["ps", "-o", "pid=,stat=,comm=", "--ppid", str(parent.pid)],
        capture_output=True,
        text=True,
        check=False,
    )
    rows = [line.split(None, 2) for line in listed.stdout.splitlines()]
    return [int(pid) for pid, state, name in rows if not state.startswith("Z") and name != FORKER]


def two_free_ports() -> int:
    """The first of two that follow each other, where no outgoing connection is given its port."""
    while True:
        first = random.randrange(20000, 30000)
        with contextlib.suppress(OSError), socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", first))
            two.bind(("127.0.0.1", first + 1))
            return first


def test_one_process_per_device_is_kept_alive_and_ends_with_its_parent(
    workplace: MakeWorkplace, broker_server: BrokerServer
) -> None:
    place = workplace(
        broker_url=broker_server.url, broker_password=broker_server.password or "", lease_seconds="3"
    )
    port = two_free_ports()
    parent = place.start_worker("--device", "cpu", "--device", "cpu", "--metrics-port", str(port))
    wait_ready(parent, times=2)
    assert len(children(parent)) == 2
    for number in range(2):
        assert "regen_worker_info" in httpx.get(f"http://127.0.0.1:{port + number}/metrics").text
    place.wait_completed(place.submit())

    killed, other = children(parent)
    os.kill(killed, signal.SIGKILL)
    wait_ready(parent, times=3)
    assert other in children(parent)
    (ended,) = lines(parent, "child_ended")
    assert ended["status"] == -signal.SIGKILL

    before = children(parent)
    assert parent.stop() == os.EX_OK
    assert not any(map(is_alive, before))

    # It is `regen` that ties its children to itself, and not how these tests start them.
    again = place.start_worker("--device", "cpu", "--device", "cpu", forks_workers=False)
    again.wait_until(lambda: len(children(again)) == 2, seconds=30, what="there are children")
    before = children(again)
    os.kill(again.pid, signal.SIGKILL)
    wait_until(lambda: not any(map(is_alive, before)), what="the children end with their parent")


def test_when_no_device_can_be_used_all_of_it_ends(workplace: MakeWorkplace) -> None:
    place = workplace()
    parent = place.start_worker("--device", "cuda:98", "--device", "99")
    wait_until(lambda: parent.status is not None, seconds=START_SECONDS, what="the parent ends")
    assert parent.status == os.EX_CONFIG
    assert "cuda:98" in parent.tail()
    assert "cuda:99" in parent.tail()
    assert [line["status"] for line in lines(parent, "child_ended")] == [os.EX_CONFIG] * 2
