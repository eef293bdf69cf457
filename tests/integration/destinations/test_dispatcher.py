"""Results reach real receivers of PUTs, an S3 server among them, whatever befalls either side."""

import hashlib
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update
from structlog.testing import capture_logs

from app.accounts import queries as account_queries
from app.destinations import dispatcher as destination_dispatcher
from app.destinations import queries as destinations
from app.destinations.dispatcher import DestinationDispatcher
from app.destinations.ledger import REMOVED
from app.destinations.tables import Destination
from app.http.resources import Resources, open_resources
from app.platform.database import Database, database_now
from app.platform.deliveries import AttemptResult
from app.platform.secrets import new_id
from app.platform.settings import Settings
from app.renders import transitions
from app.renders.representation import ShownDestination, shown_destination
from app.renders.tables import Render
from app.webhooks.tables import WebhookDelivery
from tests.integration.conftest import OpenDispatcher
from tests.integration.rows import a_file, a_render
from tests.servers.process import wait_until
from tests.servers.receiver import Receiver, receiving
from tests.servers.s3 import S3Server

RESULT = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(100_000))
SIGNATURE = "X-Amz-Signature=0123456789abcdef0123456789abcdef"
WAIT_SECONDS = 40.0
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def signed(receiver: Receiver, path: str = "/result.mp4") -> str:
    return f"http://127.0.0.1:{receiver.server.server_port}{path}?{SIGNATURE}"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def resources(database: Database, settings: Settings) -> Iterator[Resources]:
    with open_resources(settings) as resources:
        yield resources


@pytest.fixture
def make_dispatcher(open_dispatcher: OpenDispatcher) -> Callable[..., DestinationDispatcher]:
    def make(**more: Any) -> DestinationDispatcher:
        dispatcher = open_dispatcher(partial(DestinationDispatcher, look_seconds=0.05), **more)
        dispatcher.start()
        return dispatcher

    return make


@pytest.fixture
def complete(database: Database, resources: Resources, tmp_path: Path) -> Callable[..., str]:
    """A render with that destination, as if a worker had just completed it; of a user of its own on request."""

    def make(url: str | None, *, user_id: str | None = None, result: bytes = RESULT, **options: Any) -> str:
        path = tmp_path / new_id()
        path.write_bytes(result)
        with database.write() as session:
            if user_id is None:
                user_id = account_queries.add_user(session, user_id=new_id(), name=new_id()).id
            file = a_file(user_id)
            session.add(file)
            session.flush()
            render = a_render(session, file, destination=url, **options)
            key = f"renders/{render.id}/output-2.mp4"
            resources.storage.put_file(key, path, content_type="video/mp4")
            done = {"status": "completed", "output_key": key, "ended_at": database_now()}
            session.execute(update(Render).where(Render.id == render.id).values(**done))
            destinations.begin(session, render_id=render.id)
            return render.id

    return make


@pytest.fixture
def shown(database: Database) -> Callable[[str], ShownDestination]:
    def read(render_id: str) -> ShownDestination:
        with database.read() as session:
            found = shown_destination(session.get_one(Render, render_id))
        assert found is not None
        return found

    return read


@pytest.fixture
def wait_for(shown: Callable[[str], ShownDestination]) -> Callable[..., ShownDestination]:
    def wait(render_id: str, status: str) -> ShownDestination:
        wait_until(
            lambda: shown(render_id).status == status,
            seconds=WAIT_SECONDS,
            what=f"the destination is {status}",
        )
        return shown(render_id)

    return wait


def let_time_pass(database: Database) -> None:
    with database.write() as session:
        waiting = update(Destination).where(Destination.retry_at.is_not(None))
        session.execute(waiting.values(retry_at=database_now(plus_seconds=-1)))


def test_the_finished_file_arrives_with_type_and_length(
    complete, shown, wait_for, make_dispatcher, receiver, database
):
    render_id = complete(signed(receiver), webhook_url="https://example.com/hook")
    before = shown(render_id)
    assert (before.status, before.attempts, before.delivered_at) == ("pending", 0, None)
    with capture_logs() as logs:
        make_dispatcher()
        after = wait_for(render_id, "delivered")
    assert (after.url, after.attempts, after.message) == (
        f"http://127.0.0.1:{receiver.server.server_port}/result.mp4",
        1,
        None,
    )
    assert after.delivered_at is not None
    (put,) = receiver.received
    assert put.path == f"/result.mp4?{SIGNATURE}"
    assert put.body == RESULT
    assert put.headers["content-type"] == "video/mp4"
    assert put.headers["content-length"] == str(len(RESULT))
    assert "transfer-encoding" not in put.headers and "authorization" not in put.headers
    assert "Signature" not in repr(logs)
    with database.read() as session:
        events = {row.event: row.facts for row in session.scalars(select(WebhookDelivery))}
    told = events["render.delivered"]["data"]["render"]["destination"]
    assert (told["status"], told["attempts"]) == ("delivered", 1)
    assert told["deliveredAt"].endswith("Z") and SIGNATURE not in repr(events)


def test_a_render_without_a_destination_sends_nothing(complete, database):
    complete(None)
    with database.read() as session:
        assert session.scalars(select(Destination)).all() == []


@on_sqlite
@pytest.mark.parametrize(
    ("status", "said", "told"),
    [
        (403, b"<Error><Code>AccessDenied</Code></Error>", "It answered 403 (AccessDenied)."),
        (404, b"<Code>a<b</Code>", "It answered 404."),
        (307, b"", "It answered 307. Redirects are not followed."),
    ],
)
def test_an_answer_that_would_stay_the_same_is_not_asked_for_again(
    complete, wait_for, make_dispatcher, receiver, database, status, said, told
):
    receiver.answer = lambda _put: (status, {"Location": "http://127.0.0.1:1/"}, said)
    render_id = complete(signed(receiver), webhook_url="https://example.com/hook")
    make_dispatcher()
    ended = wait_for(render_id, "failed")
    assert (ended.message, ended.attempts) == (told, 1)
    with database.read() as session:
        assert session.get_one(Render, render_id).status == "completed"
        assert "render.delivery_failed" in session.scalars(select(WebhookDelivery.event)).all()


@on_sqlite
def test_a_passing_failure_is_tried_again_until_it_is_given_up(
    complete, shown, wait_for, make_dispatcher, receiver, database
):
    answers = iter([503, 429])
    receiver.answer = lambda _put: next(answers, 200)
    render_id = complete(signed(receiver))
    make_dispatcher()
    for attempts, told in ((1, "It answered 503."), (2, "It answered 429.")):
        wait_until(
            lambda told=told: shown(render_id).message == told, seconds=WAIT_SECONDS, what=f"{told} is shown"
        )
        assert (shown(render_id).status, shown(render_id).attempts) == ("pending", attempts)
        let_time_pass(database)
    assert wait_for(render_id, "delivered").attempts == 3

    receiver.answer = lambda _put: 500
    lost = complete(signed(receiver))
    wait_until(
        lambda: shown(lost).message == "It answered 500.",
        seconds=WAIT_SECONDS,
        what="the first failure is shown",
    )
    with database.write() as session:
        session.execute(update(Destination).where(Destination.id == lost).values(failures=8))
    let_time_pass(database)
    assert wait_for(lost, "failed").message == "It answered 500."


@on_sqlite
def test_private_addresses_are_refused_at_the_connection(complete, wait_for, make_dispatcher, receiver):
    make_dispatcher(outbound_allowed_networks=())
    render_id = complete(signed(receiver))
    wait_until_told = "may not connect to that address"
    deadline = time.monotonic() + WAIT_SECONDS
    while wait_until_told not in ((wait_for(render_id, "pending").message) or ""):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert receiver.received == []


def test_what_a_dead_server_had_in_hand_is_sent_by_another(
    complete, wait_for, make_dispatcher, receiver, database, resources
):
    render_id = complete(signed(receiver))
    dead = DestinationDispatcher(resources)
    (due,) = dead.ledger.due(limit=1)
    claimed = dead.ledger.claim(due)
    assert dead.ledger.claim(due) is None
    assert wait_for(render_id, "delivering").attempts == 1
    let_time_pass(database)
    make_dispatcher()
    assert wait_for(render_id, "delivered").attempts == 2
    # The dead one comes back, too late.
    assert not dead.ledger.keep(claimed)
    dead.ledger.note(claimed, AttemptResult(error="too late", is_final=True))
    assert wait_for(render_id, "delivered").message is None


@on_sqlite
def test_a_slow_receiver_of_one_user_holds_up_nobody_else(
    complete, shown, wait_for, make_dispatcher, receiver, database
):
    """Its connections are accepted, and nothing is read from them."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        first = complete(url, result=10 * RESULT)
        with database.read() as session:
            user_id = session.get_one(Render, first).user_id
        # More than the connection's buffers take.
        large = 10 * RESULT
        stuck = [first, *(complete(url, user_id=user_id, result=large) for _ in range(9))]
        dispatcher = make_dispatcher()
        wait_until(
            lambda: any(shown(one).status == "delivering" for one in stuck),
            seconds=WAIT_SECONDS,
            what="some are stuck",
        )
        assert wait_for(complete(signed(receiver)), "delivered").attempts == 1
        assert sum(shown(one).status == "delivering" for one in stuck) <= 2
        # What is broken off because the server stops is given back at once, uncharged.
        started = time.monotonic()
        dispatcher.stop()
        assert time.monotonic() - started < 10
        assert {shown(one).status for one in stuck} == {"pending"}


@on_sqlite
def test_a_receiver_that_takes_too_little_is_left(
    complete, shown, make_dispatcher, receiver, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(destination_dispatcher, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(destination_dispatcher, "LEAST_BYTES_PER_SECOND", 10**15)
    render_id = complete(signed(receiver))
    make_dispatcher()
    wait_until(
        lambda: shown(render_id).message is not None, seconds=WAIT_SECONDS, what="an attempt has failed"
    )
    assert shown(render_id).message == destination_dispatcher.TOO_SLOW


@on_sqlite
def test_a_result_that_is_gone_and_a_render_that_is_deleted(
    complete, wait_for, make_dispatcher, receiver, database, resources
):
    gone, deleted = complete(signed(receiver)), complete(signed(receiver))
    with database.write() as session:
        key = session.get_one(Render, gone).output_key
        user_id = session.get_one(Render, deleted).user_id
    resources.storage.delete(key)
    transitions.delete_render(database, resources.storage, render_id=deleted, user_id=user_id)
    make_dispatcher()
    assert wait_for(gone, "failed").message == REMOVED
    with database.read() as session:
        assert session.get(Destination, deleted) is None
    assert receiver.received == []


@pytest.mark.slow
@on_sqlite
def test_a_presigned_put_of_s3(complete, wait_for, make_dispatcher, s3_server: S3Server):
    bucket = s3_server.create_bucket()
    parameters = {"Bucket": bucket, "Key": "films/done.mp4", "ContentType": "video/mp4"}
    url = s3_server.client.generate_presigned_url("put_object", Params=parameters, ExpiresIn=600)
    other = s3_server.client.generate_presigned_url(
        "put_object", Params={**parameters, "ContentType": "text/plain"}, ExpiresIn=600
    )
    make_dispatcher()
    delivered, refused = complete(url), complete(other)
    wait_for(delivered, "delivered")
    stored = s3_server.client.get_object(Bucket=bucket, Key="films/done.mp4")
    assert (stored["Body"].read(), stored["ContentType"]) == (RESULT, "video/mp4")
    # Its signature is of another type.
    assert wait_for(refused, "failed").message == "It answered 403 (SignatureDoesNotMatch)."
