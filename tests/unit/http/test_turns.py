"""Users and peers take turns at the event loop: one's flood of requests does not delay another's."""

import asyncio
import gc
from types import SimpleNamespace

import pytest

from app.http import turns
from app.http.shared_slots import FairQueue
from app.http.turns import EXCHANGE, MOST_TURNS_PER_CALLER, LoopTurn, TakeTurns

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


async def settle():
    for _ in range(20):
        await asyncio.sleep(0)


class Requests:
    """An application whose requests run until `done`, and that knows one key."""

    def __init__(self):
        self.running, self.ends = [], {}
        self.app = TakeTurns(self)
        self.exchanges = {}
        self.tasks = []

    async def __call__(self, scope, receive, send):
        name = scope["path"]
        self.running.append(name)
        await self.ends[name].wait()
        key = dict(scope["headers"]).get(b"authorization")
        if key == b"Bearer good":
            scope["state"]["user_id"] = "usr_bob"
        status = 401 if key == b"Bearer bad" else 200
        await send({"type": "http.response.start", "status": status, "headers": []})

    async def ask(self, name, *, key="good", host="192.0.2.1"):
        exchange = self.exchanges[name] = SimpleNamespace(turn=None)
        self.ends[name] = asyncio.Event()
        headers = [(b"authorization", b"Bearer " + key.encode())] if key else []
        scope = {
            "type": "http",
            "path": name,
            "headers": headers,
            "client": (host, 1),
            "state": {},
            "extensions": {EXCHANGE: exchange},
        }
        sent = []

        async def send(message):
            sent.append(message)

        self.tasks.append(asyncio.create_task(self.app(scope, None, send)))
        await settle()
        return sent

    async def done(self, *names):
        for name in names:
            self.ends[name].set()
        await settle()


@pytest.fixture
async def requests(monkeypatch):
    monkeypatch.setattr(turns, "HOLD_SECONDS", 60.0)
    made = Requests()
    yield made
    for task in made.tasks:
        task.cancel()
    await asyncio.gather(*made.tasks, return_exceptions=True)


async def test_a_peer_with_made_up_keys_is_one_caller_and_delays_no_known_user(requests):
    await requests.ask("first")
    await requests.done("first")
    for number in range(20):
        await requests.ask(f"bad {number}", key=f"made up {number}", host="192.0.2.2")
    await requests.ask("same peer, another key", key="new", host="192.0.2.2")
    await requests.ask("known", host="192.0.2.2")
    await requests.ask("other peer", key="new", host="192.0.2.3")
    assert requests.running[1:] == ["bad 0", "bad 1", "known", "other peer"]
    await requests.done("bad 0")
    assert requests.running[-1] == "bad 2"


async def test_addresses_of_one_ipv6_network_are_one_caller(requests):
    for number in range(4):
        await requests.ask(f"{number}", key=None, host=f"2001:db8::{number}")
    assert len(requests.running) == MOST_TURNS_PER_CALLER


async def test_a_key_that_is_refused_later_is_its_peers(requests):
    key = turns._key_digest({"headers": [(b"authorization", b"Bearer bad")]})
    requests.app._users[key] = "usr_bob"
    await requests.ask("refused", key="bad")
    await requests.done("refused")
    assert not requests.app._users


async def test_one_whose_client_leaves_is_never_begun(requests):
    for name in ("one", "two", "left", "next"):
        await requests.ask(name)
    requests.exchanges["left"].turn.abandon()
    await requests.done("one", "two")
    assert requests.running == ["one", "two", "next"]
    assert await requests.exchanges["left"].turn.begin() is False


async def test_one_that_takes_long_gives_its_turn_back(requests, monkeypatch):
    monkeypatch.setattr(turns, "HOLD_SECONDS", 0.01)
    for number in range(4):
        await requests.ask(f"{number}")
    await asyncio.sleep(0.1)
    assert len(requests.running) == 4


async def test_a_wait_has_an_end(requests, monkeypatch):
    monkeypatch.setattr(turns, "WAIT_SECONDS", 0.01)
    for name in ("one", "two"):
        await requests.ask(name)
    sent = await requests.ask("three")
    await asyncio.sleep(0.1)
    assert sent[0]["status"] == 503
    assert (b"retry-after", b"5") in sent[0]["headers"]


async def test_a_turn_is_neither_lost_nor_given_twice():
    """Requests that are cancelled, or left, in the very moment of their turn."""
    queue = FairQueue(total=2, per_caller=1)

    async def one(number):
        turn = LoopTurn(queue, "ann" if number % 3 else "bob")
        if number % 5 == 0:
            asyncio.get_running_loop().call_soon(turn.abandon)
        await turn.begin()
        await asyncio.sleep(0)
        turn.end()
        turn.end()

    tasks = [asyncio.create_task(one(number)) for number in range(200)]
    for number, task in enumerate(tasks):
        if number % 7 == 0:
            await asyncio.sleep(0)
            task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    del tasks
    gc.collect()
    held, waiting = LoopTurn(queue, "ann"), LoopTurn(queue, "ann")
    await held.begin()
    task = asyncio.create_task(waiting.begin())
    await asyncio.sleep(0.001)
    held.end()
    task.cancel()  # it has the turn, and does not know it yet
    await asyncio.gather(task, return_exceptions=True)
    assert queue.take("ann") and queue.take("bob")
    assert not queue.take("ann")


async def test_a_place_rests_only_while_more_of_the_caller_wait(monkeypatch):
    monkeypatch.setattr(turns, "REST_SECONDS", 0.05)
    queue = FairQueue(total=2, per_caller=1)
    first, second, other = LoopTurn(queue, "ann"), LoopTurn(queue, "ann"), LoopTurn(queue, "bob")
    await first.begin()
    first.end(rests=True)
    assert await asyncio.wait_for(first.begin(), 0.01)  # none of hers waits

    waiting = asyncio.create_task(second.begin())
    await settle()
    first.end(rests=True)
    first.end(rests=True)
    await settle()
    assert not waiting.done() and await asyncio.wait_for(other.begin(), 0.01)
    assert await asyncio.wait_for(waiting, 5)
    second.end()
    other.end()
    assert all([queue.take("ann"), queue.take("bob")])  # each place came back once
