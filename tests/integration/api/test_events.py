"""GET /v1/renders/{id}/events, with a worker's side of the work played by a ledger."""

import contextlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select, update

from app.accounts import service as account_service
from app.accounts.tables import ApiKey, User
from app.http.connections import ConnectionLimits
from app.main import begin_end, create_app
from app.platform.errors import PermanentError
from app.renders import routes as render_routes
from app.renders import streams
from app.renders.tables import Render
from app.serving.api import ApiServer
from app.serving.listener import listen, local_url
from app.work.ledger import WorkLedger
from tests.documentation.samples import text_of
from tests.integration.conftest import FACTS
from tests.integration.rows import a_file, a_render
from tests.servers.process import wait_until
from tests.servers.relay import relay_to
from tests.servers.serving import serving

LONG = 30
DOCS = Path(__file__).parents[3] / "docs"


@dataclass(frozen=True)
class Event:
    name: str
    id: str
    data: dict[str, Any]


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch):
    monkeypatch.setattr(streams, "POLL_SECONDS", 0.03)


@pytest.fixture
def ledger(database) -> WorkLedger:
    return WorkLedger(database=database, worker="one", lease_seconds=30, max_attempts=3)


@pytest.fixture
def render_id(client, database) -> str:
    """A queued render of ann's."""
    with database.write() as session:
        file = a_file(session.scalars(select(User.id)).one())
        session.add(file)
        return a_render(session, file).id


@contextlib.contextmanager
def watching(
    client: httpx.Client, render_id: str, *, seen: str | None = None
) -> Iterator[tuple[httpx.Response, Iterator[Event]]]:
    headers = {} if seen is None else {"Last-Event-ID": seen}
    with client.stream("GET", f"/v1/renders/{render_id}/events", headers=headers, timeout=LONG) as response:
        yield response, events_of(response)


def events_of(response: httpx.Response) -> Iterator[Event]:
    fields: dict[str, str] = {}
    for line in response.iter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        else:
            if "data" in fields:
                yield Event(fields["event"], fields["id"], json.loads(fields["data"]))
            fields = {}


def finish(ledger: WorkLedger, claim: Any) -> None:
    ledger.finished(
        claim,
        output_key="renders/a/output-2.mp4",
        thumbnail_key="renders/a/thumbnail-2.jpg",
        output=FACTS,
        cost=1.0,
        warnings=[],
    )


def test_from_the_queue_to_the_end(client, render_id, ledger, prepare):
    with watching(client, render_id) as (response, told):
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store, no-transform"
        assert response.headers["x-accel-buffering"] == "no"
        first = next(told)
        assert (first.name, first.id) == ("status", "queued-1")
        assert first.data == {"id": render_id, "status": "queued", "progress": 0.0, "queuePosition": 1}

        preparing = ledger.claim()
        assert next(told) == Event(
            "status", "pending", {"id": render_id, "status": "pending", "progress": 0.0}
        )
        prepare(ledger, preparing, segments=2)
        begun = next(told)
        assert (begun.name, begun.id) == ("status", "processing-0")
        assert begun.data["frames"] == 20
        claim = ledger.claim()
        ledger.renew(claim, frames_done=4)
        assert next(told) == Event(
            "progress",
            "processing-4",
            {"id": render_id, "status": "processing", "progress": 0.2, "framesDone": 4, "frames": 20},
        )
        ledger.segment_done(claim, storage_key="a")
        assert next(told).id == "processing-10"
        ledger.segment_done(ledger.claim(), storage_key="b")
        assert next(told).data["etaSeconds"] == 0
        finish(ledger, ledger.claim())
        end = next(told)
        assert (end.name, end.id) == ("end", "completed")
        render = client.get(f"/v1/renders/{render_id}").json()["render"]
        assert without_queries(end.data["render"]) == without_queries(render)
        assert next(told, None) is None

    with watching(client, render_id) as (_response, told):
        assert [event.name for event in told] == ["end"]
    with watching(client, render_id, seen="completed") as (response, _told):
        assert response.status_code == 204


def without_queries(render: dict[str, Any]) -> dict[str, Any]:
    """Signed URLs differ in when they expire."""
    return {
        name: value.partition("?")[0] if isinstance(value, str) else value for name, value in render.items()
    }


def test_a_part_that_is_done_again_takes_no_progress_back(client, render_id, ledger, prepare):
    prepare(ledger, ledger.claim(), segments=2)
    claim = ledger.claim()
    ledger.renew(claim, frames_done=7)
    with watching(client, render_id) as (_response, told):
        assert next(told).id == "processing-7"
        ledger.hand_back(claim)
        claim = ledger.claim()
        ledger.renew(claim, frames_done=3)
        with watching(client, render_id) as (_other, others):
            assert next(others).id == "processing-3"  # so the first has had the chance to be told
        ledger.renew(claim, frames_done=8)
        assert next(told).id == "processing-8"


def test_a_client_that_comes_back_is_told_only_what_is_new_by_any_process(
    client, key, serve, settings, render_id, ledger, prepare
):
    with watching(client, render_id) as (_response, told):
        seen = next(told).id
    prepare(ledger, ledger.claim(), segments=1)
    other = serve(settings, key=key)
    with watching(other, render_id, seen=seen) as (_response, told):
        seen = next(told).id
        assert seen == "processing-0"
    claim = ledger.claim()
    for frames, target in ((4, client), (6, other)):
        with watching(target, render_id, seen=seen) as (_response, told):
            ledger.renew(claim, frames_done=frames)
            seen = next(told).id
            assert seen == f"processing-{frames}"
    with client.stream("GET", f"/v1/renders/{render_id}/events", params={"last_event_id": seen}) as response:
        ledger.failed(claim, PermanentError("It is damaged."))
        end = next(events_of(response))
    assert (end.id, end.data["render"]["error"]) == ("failed", "It is damaged.")


@pytest.mark.parametrize("seen", ["", "processing-999", "no id of ours", "failed", "queued-7-7"])
def test_an_id_that_says_nothing_of_this_render_hides_nothing(client, render_id, ledger, prepare, seen):
    prepare(ledger, ledger.claim(), segments=1)
    with watching(client, render_id, seen=seen) as (_response, told):
        assert next(told).id == "processing-0"


def test_only_the_users_own(client, stranger, make_key, render_id):
    assert client.get("/v1/renders/unknown/events").status_code == 404
    answer = client.get(
        f"/v1/renders/{render_id}/events", headers={"Authorization": f"Bearer {make_key('bob')}"}
    )
    assert answer.status_code == 404
    assert answer.json() == {"errors": [{"message": "Render not found"}]}


def test_a_deleted_render_ends_the_stream(client, render_id, database):
    with watching(client, render_id) as (_response, told):
        next(told)
        with database.write() as session:
            session.delete(session.get_one(Render, render_id))
        assert next(told) == Event("end", "deleted", {"deleted": True})
        assert next(told, None) is None
    assert client.get(f"/v1/renders/{render_id}/events").status_code == 404


@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_a_key_that_is_no_longer_good_ends_the_stream(client, render_id, database, how):
    with watching(client, render_id) as (_response, told):
        next(told)
        with database.write() as session:
            key_id = session.query(ApiKey.id).scalar()
            if how == "revoked":
                account_service.revoke_key(session, key_id=key_id)
            else:
                a_while_ago = session.get_one(ApiKey, key_id).created_at
                session.execute(update(ApiKey).values(expires_at=a_while_ago))
        assert list(told) == []


def test_so_many_streams_and_no_more(serve, settings, key, client, render_id):
    few = serve(settings.model_copy(update={"max_event_streams_per_user": 2}), key=key)
    with watching(few, render_id) as (_one, told), watching(few, render_id) as (_two, _):
        next(told)
        refused = few.get(f"/v1/renders/{render_id}/events")
        assert refused.status_code == 429
        assert refused.json() == {
            "errors": [{"message": "At most 2 streams of events may be open at once. Close one."}]
        }
        assert int(refused.headers["Retry-After"]) > 0

    def has_room() -> bool:
        with watching(few, render_id) as (response, _told):
            return response.status_code == 200

    # Those that were closed are given back, as soon as the server has noticed.
    wait_until(has_room, seconds=LONG, what="there is room for a stream")


def test_streams_spoil_no_metrics(client, render_id):
    def sample(name: str) -> float:
        lines = client.get("/metrics").text.splitlines()
        return float(next(line.split(" ")[1] for line in lines if line.startswith(f"{name} ")))

    with watching(client, render_id) as (_response, told):
        next(told)
        assert sample("regen_event_streams") == 1
        assert sample("regen_http_requests_in_progress") == 1  # the scrape's own
    wait_until(lambda: sample("regen_event_streams") == 0, seconds=LONG, what="the stream has ended")
    assert sample("regen_http_requests_in_progress") == 1
    seen = client.get("/metrics").text
    route = 'route="/v1/renders/{render_id}/events"'
    assert f'regen_http_requests_total{{method="GET",{route},status="200"}} 1.0' in seen
    assert not [line for line in seen.splitlines() if "request_seconds" in line and route in line]


def test_silence_is_broken_by_comments(client, render_id, monkeypatch):
    monkeypatch.setattr(render_routes, "PING_SECONDS", 0.05)
    with client.stream("GET", f"/v1/renders/{render_id}/events") as response:
        lines = response.iter_lines()
        assert next(line for line in lines if line.startswith("retry: ")) == "retry: 2000"
        assert next(line for line in lines if line.startswith(":")) == ": ping"


def test_a_client_that_takes_nothing_is_dropped(monkeypatch, capfd):
    monkeypatch.setattr(render_routes, "SEND_SECONDS", 0.3)
    app, given_back = FastAPI(), []

    @app.get("/")
    async def flood() -> render_routes.RenderEventStream:
        async def endless():
            while True:
                yield render_routes.ServerSentEvent("x" * 100_000)

        return render_routes.RenderEventStream(endless(), give_back=lambda: given_back.append(True))

    with serving(app) as url:
        address = urlsplit(url)
        with socket.create_connection((address.hostname, address.port), timeout=LONG) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: regen.test\r\n\r\n")
            wait_until(lambda: given_back, seconds=LONG, what="the stream is given back")
            # What had been sent may still be read, and then the answer breaks off.
            received = b""
            while piece := connection.recv(1 << 20):
                received = received[-100:] + piece
    assert not received.endswith(b"0\r\n\r\n")
    assert given_back == [True]
    assert "ASGI" not in capfd.readouterr().err


def test_a_server_that_stops_ends_its_streams_in_good_order(client, key, settings, render_id):
    app = create_app(settings)
    with listen("127.0.0.1", 0) as listener:
        api = ApiServer(
            app, limits=ConnectionLimits.from_settings(settings), before_grace=partial(begin_end, app)
        )
        thread = threading.Thread(target=api.serve_socket, args=(listener,))
        thread.start()
        try:
            wait_until(lambda: api.started, seconds=LONG, what="the server has started")
            headers = {"Authorization": f"Bearer {key}"}
            with (
                httpx.Client(base_url=local_url(listener), headers=headers) as watcher,
                watching(watcher, render_id) as (_response, told),
            ):
                assert next(told).id == "queued-1"
                api.stop(again=False)
                # One that is cut off in the middle raises.
                assert list(told) == []
        finally:
            api.stop(again=False)
            thread.join(LONG)
    assert not thread.is_alive()


def test_no_block_is_without_data(client, render_id):
    """Some clients take a block of `retry` alone for an event, and fail at its data."""
    with client.stream("GET", f"/v1/renders/{render_id}/events") as response:
        first = list(iter(partial(next, response.iter_lines()), ""))
    assert [line.partition(":")[0] for line in first] == ["id", "event", "data", "retry"]


def test_the_stream_of_the_page(client, render_id, ledger, prepare, monkeypatch):
    """Every block of docs/events.md is one that the server sends: its lines, ids, events and the names in its data."""
    monkeypatch.setattr(render_routes, "PING_SECONDS", 0.05)
    with client.stream("GET", f"/v1/renders/{render_id}/events", timeout=LONG) as response:
        lines, read = response.iter_lines(), ""

        def until(begin: str) -> None:
            nonlocal read
            while not (line := next(lines)).startswith(begin):
                read += f"{line}\n"
            read += f"{line}\n"

        until("retry: ")
        until(": ping")
        prepare(ledger, ledger.claim(), segments=2)
        until("id: processing-0")
        claim = ledger.claim()
        ledger.renew(claim, frames_done=4)
        until("id: processing-4")
        ledger.segment_done(claim, storage_key="a")
        until("id: processing-10")
        ledger.segment_done(ledger.claim(), storage_key="b")
        finish(ledger, ledger.claim())
        read += "\n".join(lines)

    def form(block: str) -> tuple[tuple[str, ...], dict[str, Any]]:
        data = [line for line in block.splitlines() if line.startswith("data: ")]
        rest = re.sub(r"(?m)^data: .*$", "data", re.sub(r"-\d+$", "-N", block, flags=re.MULTILINE))
        return tuple(rest.splitlines()), json.loads(data[0][6:].replace(", ...", "")) if data else {}

    sent: dict[tuple[str, ...], dict[str, Any]] = {}
    for block in filter(None, read.strip().split("\n\n")):
        lines_of_it, data = form(block)
        sent[lines_of_it] = sent.get(lines_of_it, {}) | data
    shown = [form(block) for block in text_of("docs/events.md", "id: queued-1").strip().split("\n\n")]
    assert len(shown) == 5
    for lines_of_it, data in shown:
        assert lines_of_it in sent, (lines_of_it, list(sent))
        told = sent[lines_of_it]
        # The first of all, too early for a speed, has no time that is left.
        assert data.keys() - {"etaSeconds"} <= told.keys(), (data, told)
        assert data.get("render", {}).keys() <= told.get("render", {}).keys()


@pytest.mark.parametrize("seen", [None, "queued-1", "nothing of this render"])
def test_no_block_to_the_end_is_without_data(client, render_id, ledger, seen):
    ledger.failed(ledger.claim(), PermanentError("It is damaged."))
    headers = {} if seen is None else {"Last-Event-ID": seen}
    told = client.get(f"/v1/renders/{render_id}/events", headers=headers).text
    blocks = [block.splitlines() for block in told.rstrip().split("\n\n")]
    for block in blocks:
        names = [line.partition(":")[0] for line in block]
        assert names in (["id", "event", "data", "retry"], ["id", "event", "data"]), block
    assert blocks[-1][1] == "event: end"


def test_the_sample_of_the_documentation_ends_wherever_its_stream_is_cut(
    server, key, client, render_id, ledger, prepare, capsys
):
    """By a proxy that breaks off, and by one that ends the answer in good order."""
    ledger.failed(ledger.claim(), PermanentError("It is damaged."))
    with client.stream("GET", f"/v1/renders/{render_id}/events") as response:
        told = response.read()
    page = (DOCS / "events.md").read_text()
    sample: dict[str, Any] = {}
    exec(page.partition("```python\n")[2].partition("```")[0], sample)

    def pause(_seconds: float) -> None:
        nonlocal pauses
        pauses += 1
        assert pauses == 1, "it comes back once"

    sample["time"] = SimpleNamespace(sleep=pause)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n"
    # One client for all, because to make one takes longer than a request.
    with relay_to(urlsplit(server).port) as relay, httpx.Client() as shared:
        sample["httpx"] = SimpleNamespace(
            stream=shared.stream, get=shared.get, TransportError=httpx.TransportError
        )
        follow = partial(sample["follow"], f"http://127.0.0.1:{relay.port}", key, render_id)
        # Within the JSON one byte is like another.
        begin, end = told.index(b"{"), told.rindex(b"}")
        for cut in (*range(begin + 2), *range(begin + 2, end, 17), *range(end, len(told) + 1)):
            length = b"" if cut % 2 else b"Content-Length: %d\r\n" % len(told)
            pauses = 0
            relay.answers.append(head + length + b"\r\n" + told[:cut])
            assert follow()["error"] == "It is damaged.", told[:cut]
    capsys.readouterr()
