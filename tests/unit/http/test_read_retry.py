"""Reads that wait for the database, with an application that says what the test wants it to."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from app.http import read_retry
from app.http.read_retry import DATABASE_AWAY, ReadRetry

AWAY, WELL, OTHERWISE_AWAY = "away", "well", "away for another reason"


class Application:
    """Answers as `plan` says, the last entry again and again."""

    def __init__(self, *plan: str) -> None:
        self.plan = list(plan)
        self.asked = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        what = self.plan[min(self.asked, len(self.plan) - 1)]
        self.asked += 1
        scope["route"] = f"route {self.asked}"
        if what == AWAY:
            scope["state"][DATABASE_AWAY] = True
        await send({"type": "http.response.start", "status": 200 if what == WELL else 503, "headers": []})
        await send({"type": "http.response.body", "body": what.encode(), "more_body": False})


class Client:
    """Stays until `leaves` is set."""

    def __init__(self) -> None:
        self.leaves = asyncio.Event()
        self.got: list[Any] = []
        self._asked = False

    async def receive(self) -> Any:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.got.append(message)

    @property
    def answers(self) -> list[tuple[int, bytes]]:
        starts = [message["status"] for message in self.got if message["type"] == "http.response.start"]
        bodies = [message["body"] for message in self.got if message["type"] == "http.response.body"]
        return list(zip(starts, bodies, strict=True))


def scope(method: str = "GET", path: str = "/v1/renders/x", **headers: str) -> dict[str, Any]:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "method": method, "path": path, "headers": pairs, "state": {"request_id": "1"}}


def patient(
    application: Application, *, seconds: float = 30, answers: Callable[[], bool] = lambda: True
) -> ReadRetry:
    async def database_answers() -> bool:
        return answers()

    return ReadRetry(application, seconds=lambda: seconds, answers=database_answers)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_read_gets_the_one_answer_that_the_database_has_once_it_is_back(method):
    async def run() -> None:
        application, client, looks = Application(AWAY, AWAY, WELL), Client(), iter([False, True, True])
        asked = scope(method)
        await patient(application, answers=lambda: next(looks))(asked, client.receive, client.send)
        assert client.answers == [(200, b"well")]
        # Only a database that answered is worth a thread.
        assert (application.asked, next(looks, None)) == (3, None)
        assert asked["route"] == "route 3", "those who observe the request see where it went"
        assert asked["state"] == {"request_id": "1"}

    asyncio.run(run())


@pytest.mark.parametrize(
    "asked",
    [
        scope("POST"),
        scope("DELETE"),
        scope(path="/readyz"),
        scope(path="/metrics"),
        scope(content_length="3"),
        scope(transfer_encoding="chunked"),
    ],
    ids=lambda asked: f"{asked['method']} {asked['path']} {len(asked['headers'])}",
)
def test_whatever_is_no_read_is_answered_at_once(asked):
    async def run() -> None:
        application, client = Application(AWAY, WELL), Client()
        await patient(application)(asked, client.receive, client.send)
        assert client.answers == [(503, b"away")]

    asyncio.run(run())


def test_other_reasons_for_a_503_are_no_reason_to_wait():
    async def run() -> None:
        application, client = Application(OTHERWISE_AWAY, WELL), Client()
        await patient(application)(scope(), client.receive, client.send)
        assert client.answers == [(503, OTHERWISE_AWAY.encode())]

    asyncio.run(run())


@pytest.mark.parametrize("is_back", [False, True])
def test_patience_ends(is_back):
    async def run() -> None:
        application, client = Application(AWAY), Client()
        await patient(application, seconds=0.5, answers=lambda: is_back)(scope(), client.receive, client.send)
        assert client.answers == [(503, b"away")]
        assert (application.asked > 1) == is_back

    asyncio.run(run())


def test_without_patience_nobody_waits():
    async def run() -> None:
        application, client = Application(AWAY, WELL), Client()
        await patient(application, seconds=0)(scope(), client.receive, client.send)
        assert client.answers == [(503, b"away")]

    asyncio.run(run())


def test_nobody_waits_on_for_a_client_that_left():
    async def run() -> None:
        application, client = Application(AWAY), Client()
        middleware = patient(application, seconds=600, answers=lambda: False)
        waiting = asyncio.create_task(middleware(scope(), client.receive, client.send))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        client.leaves.set()
        await asyncio.wait_for(waiting, 10)
        assert client.got == []

    asyncio.run(run())


def test_only_so_many_wait(monkeypatch):
    monkeypatch.setattr(read_retry, "MOST_WAITING", 2)

    async def run() -> None:
        is_back = False
        application = Application(AWAY)
        middleware = patient(application, answers=lambda: is_back)
        clients = [Client() for _ in range(3)]
        tasks = [asyncio.create_task(middleware(scope(), client.receive, client.send)) for client in clients]
        done, _ = await asyncio.wait(tasks, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        assert done == {tasks[2]} and clients[2].answers == [(503, b"away")]
        application.plan, is_back = [WELL], True
        await asyncio.wait_for(asyncio.gather(*tasks), 30)
        assert [client.answers for client in clients[:2]] == [[(200, b"well")]] * 2

        # Their places are free again.
        application.plan, application.asked = [AWAY, WELL], 0
        late = Client()
        await middleware(scope(), late.receive, late.send)
        assert late.answers == [(200, b"well")]

    asyncio.run(run())
