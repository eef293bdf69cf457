"""Deliveries reach real receivers on loopback, whatever befalls either side."""

import json
import threading
import time
from datetime import timedelta

import pytest
import structlog
from sqlalchemy import select, update
from standardwebhooks import WebhookVerificationError
from structlog.testing import LogCapture

from app.accounts.tables import User
from app.platform import clock
from app.platform import dispatcher as platform_dispatcher
from app.platform.database import database_now
from app.platform.deliveries import STOPPED
from app.platform.errors import DatabaseUnavailable, OutboundError
from app.platform.retry_policies import WEBHOOK_DELIVERY, RetryPolicy
from app.platform.storage.local import LocalStorage
from app.renders import transitions
from app.webhooks import dispatcher as webhook_dispatcher
from app.webhooks import outbox
from app.webhooks import queries as rows
from app.webhooks import service as webhook_service
from app.webhooks.delivery import FAILED_FOR_DAYS, GONE, NO_LONGER_WANTED
from app.webhooks.dispatcher import Reply
from app.webhooks.statuses import WebhookEvent
from app.webhooks.tables import WebhookDelivery, WebhookEndpoint
from tests.documentation.samples import text_of
from tests.integration.webhooks.test_outbox import complete
from tests.servers.process import free_port, wait_until
from tests.servers.receiver import receiving

# What has to do with the wire alone.
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
PAUSES_SECONDS = WEBHOOK_DELIVERY.steps_seconds
SLACK_SECONDS = 20.0
WAIT_SECONDS = 30.0


def seconds_until(database, moment):
    """From now, on the database's clock."""
    with database.read() as session:
        return (moment - session.scalar(select(database_now()))).total_seconds()


def test_the_way_of_a_render(hooks, make_dispatcher, make_ledger, prepare, receiver):
    endpoint = hooks.add_endpoint(receiver.url, events=(WebhookEvent.COMPLETED,))
    render_id = hooks.add_render(webhook_url=receiver.url)
    complete(make_ledger(), prepare)

    make_dispatcher().start()

    for delivery in hooks.deliveries():
        ended = hooks.wait_for(delivery.id, status="delivered")
        assert (ended.retry_at, ended.attempt, ended.failures) == (None, 1, 0)
        (attempt,) = hooks.attempts(delivery.id)
        assert (attempt.number, attempt.status_code, attempt.error) == (1, 204, None)
    assert sorted(receiver.ids) == sorted(delivery.id for delivery in hooks.deliveries())
    events = [received.verified(hooks.secret()) for received in receiver.received]
    assert sorted(event["type"] for event in events) == [
        "render.completed",
        "render.completed",
        "render.processing",
        "render.queued",
    ]
    bodies = {event["type"]: event["data"]["render"] for event in events}
    assert {body["id"] for body in bodies.values()} == {render_id}
    queued, completed = bodies["render.queued"], bodies["render.completed"]
    assert (queued["status"], queued["queuePosition"], queued["progress"]) == ("queued", 1, 0)
    assert "outputFileURL" not in queued and queued["inputFileURL"].startswith("http://regen.test/storage/")
    assert (completed["status"], completed["progress"], completed["cost"]) == ("completed", 1, 1.5)
    assert completed["outputFileURL"].startswith("http://regen.test/storage/")
    assert hooks.endpoint(endpoint).failing_since is None
    # A request is as the page has it; the server says besides what belongs to HTTP.
    head, _, body = text_of("docs/webhooks.md", "POST /hooks").partition("\n\n")
    shown = [line.partition(": ")[0].lower() for line in head.splitlines()[1:]]
    event = json.loads(body.replace(", ...", ""))
    (received,) = [one for one in receiver.received if one.id == hooks.deliveries()[-1].id]
    of_http = {"host", "accept", "accept-encoding", "connection", "user-agent", "content-length"}
    assert [name for name in received.headers if name not in of_http] == shown
    assert head.splitlines()[1].partition(": ")[2] == received.headers["content-type"]
    assert list(received.verified(hooks.secret())) == list(event)
    assert event["type"] in bodies and event["data"]["render"].keys() <= completed.keys()


@on_sqlite
def test_without_an_address_of_its_own_the_api_sends_no_urls_of_its_own(hooks, make_dispatcher, receiver):
    render_id = hooks.add_render(webhook_url=receiver.url)
    make_dispatcher(base_url=None).start()

    wait_until(lambda: receiver.received, seconds=WAIT_SECONDS, what="it is told")
    render = receiver.received[0].verified(hooks.secret())["data"]["render"]
    assert render["id"] == render_id
    assert "inputFileURL" not in render


@on_sqlite
def test_a_render_that_was_deleted_is_told_without_urls(hooks, make_dispatcher, receiver, tmp_path):
    render_id = hooks.add_render(webhook_url=receiver.url)
    with hooks.database.write() as session:
        transitions.cancel_render(session, render_id=render_id, user_id=hooks.user_id)
    storage = LocalStorage(root=tmp_path / "storage", url_key=b"a key")
    transitions.delete_render(hooks.database, storage, render_id=render_id, user_id=hooks.user_id)
    make_dispatcher().start()

    wait_until(lambda: len(receiver.received) == 2, seconds=WAIT_SECONDS, what="both are told")
    renders = [received.verified(hooks.secret())["data"]["render"] for received in receiver.received]
    assert sorted(render["status"] for render in renders) == ["failed", "queued"]
    assert all(not any(name.endswith("URL") for name in render) for render in renders)
    assert all("filesRemovedAt" not in render for render in renders)


def test_two_dispatchers_share_the_work(hooks, make_dispatcher):
    with receiving("127.0.0.1") as one, receiving("127.0.0.2") as other:
        ids = [hooks.add_delivery(url) for url in (one.url, other.url) for _ in range(15)]
        for _ in range(2):
            make_dispatcher().start()
        for delivery_id in ids:
            hooks.wait_for(delivery_id, status="delivered")

        assert sorted(one.ids + other.ids) == sorted(ids), "each of them once"


@on_sqlite
def test_what_receivers_do_wrong_is_told_and_tried_again(hooks, make_dispatcher, receiver):
    release = threading.Event()
    answers = {
        "/broken": 500,
        "/busy": (503, {"Retry-After": "3600"}),
        "/redirects": (307, {"Location": f"{receiver.url}/elsewhere"}),
    }

    def answer(received):
        if received.path == "/silent":
            release.wait(WAIT_SECONDS)
        return answers.get(received.path, 204)

    receiver.answer = answer
    root = receiver.url.removesuffix("/hook")
    paths = [*answers, "/silent"]
    ids = {path: hooks.add_delivery(root + path) for path in paths}
    ids["nobody"] = hooks.add_delivery(f"http://127.0.0.3:{free_port()}/")
    try:
        make_dispatcher(webhook_timeout_seconds=1.0).start()
        met = {path: hooks.wait_for_attempt(delivery_id, 1) for path, delivery_id in ids.items()}
    finally:
        release.set()

    assert {path: (attempt.status_code, attempt.error) for path, attempt in met.items()} == {
        "/broken": (500, "It answered 500."),
        "/busy": (503, "It answered 503."),
        "/redirects": (307, "It answered 307. Redirects are not followed."),
        "/silent": (None, "The other server took too long."),
        "nobody": (None, "The other server cannot be reached."),
    }
    assert sorted(received.path for received in receiver.received[: len(paths)]) == sorted(paths)
    assert not any("elsewhere" in received.path for received in receiver.received)
    busy = hooks.delivery(ids["/busy"])
    assert (busy.status, busy.failures) == ("pending", 1)
    assert 3600 - SLACK_SECONDS < seconds_until(hooks.database, busy.retry_at) <= 3600

    receiver.answer = lambda _received: 200
    hooks.let_time_pass()
    hooks.wait_for(ids["/broken"], status="delivered")
    again = [received.id for received in receiver.received if received.path == "/broken"]
    assert len(again) == 2 and set(again) == {ids["/broken"]}


def add_later_delivery(hooks, endpoint_id, url):
    """One that is due in an hour."""
    with hooks.database.write() as session:
        delivery_id = outbox.add_delivery(
            session,
            user_id=hooks.user_id,
            endpoint_id=endpoint_id,
            render_id=None,
            url=url,
            event=WebhookEvent.TEST,
            facts={},
        )
        session.execute(
            update(WebhookDelivery)
            .where(WebhookDelivery.id == delivery_id)
            .values(retry_at=database_now(plus_seconds=3600))
        )
    return delivery_id


def test_a_receiver_that_is_gone_is_left_in_peace(hooks, make_dispatcher, receiver):
    receiver.answer = lambda _received: 410
    endpoint, other = hooks.add_endpoint(receiver.url), hooks.add_endpoint(f"{receiver.url}/other")
    first = hooks.add_delivery(receiver.url, endpoint_id=endpoint)
    later = add_later_delivery(hooks, endpoint, receiver.url)
    make_dispatcher().start()

    hooks.wait_for(first, status="failed")
    assert hooks.endpoint(endpoint).disabled_reason == GONE
    assert hooks.endpoint(other).disabled_at is None
    assert hooks.wait_for(later, status="failed").attempt == 0
    assert receiver.ids == [first]


@pytest.mark.parametrize("failing_days", [4, 6])
def test_after_the_last_attempt_it_is_given_up_and_can_be_replayed(
    hooks, make_dispatcher, receiver, failing_days
):
    receiver.answer = lambda _received: 500
    endpoint = hooks.add_endpoint(receiver.url)
    delivery_id = hooks.add_delivery(receiver.url, endpoint_id=endpoint)
    dispatcher = make_dispatcher()
    dispatcher.start()
    for number in range(1, len(PAUSES_SECONDS) + 1):
        hooks.wait_for_attempt(delivery_id, number)
        row = hooks.delivery(delivery_id)
        assert row.failures == number
        pause, slack = PAUSES_SECONDS[number - 1], SLACK_SECONDS
        assert pause - slack < seconds_until(hooks.database, row.retry_at) < 1.2 * pause
        with hooks.database.write() as session:
            session.execute(
                update(WebhookEndpoint).values(
                    failing_since=database_now(plus_seconds=-failing_days * 86_400)
                )
            )
        hooks.let_time_pass()

    row = hooks.wait_for(delivery_id, status="failed")
    assert (row.attempt, row.retry_at) == (len(PAUSES_SECONDS) + 1, None)
    disabled = hooks.endpoint(endpoint).disabled_reason
    assert disabled == (FAILED_FOR_DAYS if failing_days > 5 else None)
    if disabled:
        return
    receiver.answer = lambda _received: 200
    with hooks.database.write() as session:
        replayed = webhook_service.replay_delivery(session, delivery_id=delivery_id, user_id=hooks.user_id)
        assert (replayed.status, replayed.failures, replayed.ended_at) == ("pending", 0, None)
    hooks.wait_for(delivery_id, status="delivered")
    assert set(receiver.ids) == {delivery_id}
    assert hooks.endpoint(endpoint).failing_since is None


def test_after_a_crash_it_arrives_again_under_the_same_id(hooks, make_dispatcher, receiver, monkeypatch):
    delivery_id = hooks.add_delivery(receiver.url)
    dying = make_dispatcher()
    dead = threading.Event()

    def die(*_arguments):
        # What has ended claims nothing, even if its lease runs out before it is stopped.
        monkeypatch.setattr(dying.ledger, "due", lambda **_limits: [])
        dead.set()
        raise RuntimeError("the process ends here")

    monkeypatch.setattr(dying.ledger, "note", die)
    # Nor does it give anything back, however long its last thread takes to end.
    monkeypatch.setattr(dying.ledger, "give_back", lambda _claimed: None)
    dying.start()
    assert dead.wait(WAIT_SECONDS)
    dying.stop()
    assert hooks.delivery(delivery_id).status == "pending"
    assert hooks.delivery(delivery_id).lease_expires_at is not None
    hooks.let_time_pass()
    make_dispatcher().start()

    row = hooks.wait_for(delivery_id, status="delivered")
    assert (row.attempt, row.failures) == (2, 1)
    assert receiver.ids == [delivery_id, delivery_id]


@on_sqlite
def test_one_dead_receiver_holds_up_nobody_else(hooks, make_dispatcher):
    release = threading.Event()
    with receiving("127.0.0.1") as dead, receiving("127.0.0.2") as alive:
        dead.answer = lambda _received: 204 if release.wait(60) else 500
        held_up = [hooks.add_delivery(dead.url) for _ in range(12)]
        quick = [hooks.add_delivery(alive.url) for _ in range(3)]
        try:
            make_dispatcher(webhook_concurrency=6, webhook_timeout_seconds=60.0).start()
            for delivery_id in quick:
                hooks.wait_for(delivery_id, status="delivered")
            assert len(dead.received) <= 2, "no more at a time for one host"
        finally:
            release.set()
        for delivery_id in held_up:
            hooks.wait_for(delivery_id, status="delivered")


@on_sqlite
def test_users_whose_receivers_never_answer_hold_up_nobody_else(hooks, make_dispatcher):
    """Any number of them, with any number of hosts: what failed once has no more than half."""
    held, release = threading.Semaphore(0), threading.Event()
    with receiving("127.0.0.1") as alive:
        dispatcher = make_dispatcher(webhook_concurrency=8)

        def send(event):
            if event.url == alive.url:
                return Reply(status_code=204)
            held.release()
            assert release.wait(WAIT_SECONDS)
            raise OutboundError("No answer.")

        dispatcher.send = send
        attackers = [hooks.add_user() for _ in range(6)]
        for attacker in attackers:
            for number in range(4):
                delivery_id = hooks.add_delivery(f"http://host-{number}.example/", user_id=attacker)
                with hooks.database.write() as session:
                    session.get_one(WebhookDelivery, delivery_id).failures = 1
        dispatcher.start()
        try:
            for _ in range(4):
                assert held.acquire(timeout=WAIT_SECONDS)
            hooks.wait_for(hooks.add_delivery(alive.url), status="delivered")
            assert not held.acquire(blocking=False)
        finally:
            release.set()


@on_sqlite
def test_users_whose_receivers_answer_at_the_last_moment_leave_places_to_others(hooks, make_dispatcher):
    """Their receivers never fail: of the last quarter of the places a user has one."""
    release = threading.Event()
    with receiving("127.0.0.1") as alive:
        dispatcher = make_dispatcher(webhook_concurrency=8)

        def send(event):
            assert event.url == alive.url or release.wait(WAIT_SECONDS)
            return Reply(status_code=204)

        dispatcher.send = send
        for attacker in [hooks.add_user() for _ in range(3)]:
            for number in range(4):
                hooks.add_delivery(f"http://host-{number}.example/", user_id=attacker)
        dispatcher.start()
        try:
            hooks.wait_for(hooks.add_delivery(alive.url), status="delivered")
        finally:
            release.set()


@on_sqlite
def test_what_is_in_hand_at_the_end_is_given_back(hooks, make_dispatcher, receiver):
    release = threading.Event()
    receiver.answer = lambda _received: 204 if release.wait(60) else 500
    delivery_id = hooks.add_delivery(receiver.url)
    stopping = make_dispatcher(webhook_timeout_seconds=60.0)
    stopping.start()
    wait_until(lambda: receiver.received, seconds=WAIT_SECONDS, what="it is under way")
    began = time.monotonic()
    stopping.stop()
    assert time.monotonic() - began < WAIT_SECONDS
    row = hooks.delivery(delivery_id)
    assert (row.status, row.failures, row.lease_expires_at) == ("pending", 0, None)
    assert [attempt.error for attempt in hooks.attempts(delivery_id)] == [STOPPED]

    release.set()
    make_dispatcher().start()
    assert hooks.wait_for(delivery_id, status="delivered").attempt == 2


@on_sqlite
def test_while_the_secret_changes_both_sign(hooks, make_dispatcher, receiver):
    make_dispatcher().start()

    def received_by(delivery_id):
        hooks.wait_for(delivery_id, status="delivered")
        return next(received for received in receiver.received if received.id == delivery_id)

    endpoint = hooks.add_endpoint(receiver.url)
    old = hooks.secret()
    with hooks.database.write() as session:
        new = webhook_service.rotate_secret(session, user_id=hooks.user_id, keys=hooks.keys).current
    both = received_by(hooks.add_delivery(receiver.url, endpoint_id=endpoint))
    assert both.verified(old) == both.verified(new)
    assert both.verified(old)["type"] == "webhook.test"
    with hooks.database.write() as session:
        session.execute(update(User).values(webhook_secret_rotated_at=clock.now() - timedelta(days=1)))
    later = received_by(hooks.add_delivery(receiver.url, endpoint_id=endpoint))
    assert later.verified(new)
    with pytest.raises(WebhookVerificationError):
        later.verified(old)


def test_a_webhook_that_changes_meanwhile(hooks, make_dispatcher, receiver):
    """Its user's requests and the notes about its deliveries neither wait for each other for ever, nor get lost."""
    endpoint = hooks.add_endpoint(receiver.url)
    ids = [hooks.add_delivery(receiver.url, endpoint_id=endpoint) for _ in range(12)]
    gone = hooks.add_delivery(receiver.url, endpoint_id="removed")
    receiver.answer = lambda received: 500 if len(receiver.received) % 2 else 204
    for _ in range(2):
        make_dispatcher().start()

    def all_ended():
        hooks.let_time_pass()
        with hooks.database.write() as session:
            webhook_service.change_endpoint(
                session,
                endpoint_id=endpoint,
                user_id=hooks.user_id,
                url=f"{receiver.url}/{len(receiver.received)}",
                events=None,
                enabled=True,
            )
        return all(hooks.delivery(delivery_id).status == "delivered" for delivery_id in ids)

    wait_until(all_ended, seconds=WAIT_SECONDS, what="all are delivered")
    assert len({received.path for received in receiver.received}) > 1
    assert hooks.wait_for(gone, status="failed").attempt == 1
    assert [attempt.error for attempt in hooks.attempts(gone)] == [NO_LONGER_WANTED]
    assert gone not in receiver.ids


@on_sqlite
def test_a_database_that_is_away_for_a_moment(hooks, make_dispatcher, receiver, monkeypatch):
    monkeypatch.setattr(platform_dispatcher, "DISPATCH", RetryPolicy(steps_seconds=(0.05,)))
    monkeypatch.setattr(platform_dispatcher, "LOOK_SECONDS", 0.05)
    delivery_id = hooks.add_delivery(receiver.url)
    dispatcher = make_dispatcher()

    def away_for(name, *errors):
        method, left = getattr(dispatcher.ledger, name), list(errors)

        def call(*arguments, **options):
            if left:
                raise left.pop(0)
            return method(*arguments, **options)

        monkeypatch.setattr(dispatcher.ledger, name, call)

    away = DatabaseUnavailable("It is away.")
    away_for("due", away, away, RuntimeError("a defect"))
    away_for("claim", away)
    away_for("note", away, away)
    capture = LogCapture()
    log = structlog.wrap_logger(
        structlog.ReturnLogger(),
        processors=[structlog.stdlib.add_log_level, capture],
        wrapper_class=structlog.make_filtering_bound_logger(0),
    )
    monkeypatch.setattr(webhook_dispatcher, "log", log)
    dispatcher.start()
    hooks.wait_for(delivery_id, status="delivered")

    assert receiver.ids == [delivery_id]
    told = [line["level"] for line in capture.entries if line["event"] == "webhooks_not_looked_for"]
    assert told == ["warning", "error", "warning"], "once for each kind of trouble in a row"


@on_sqlite
def test_private_addresses_are_never_told(hooks, make_dispatcher, receiver):
    port = receiver.server.server_port
    ids = [hooks.add_delivery(f"http://{host}:{port}/") for host in ("127.0.0.1", "localhost", "[::1]")]
    make_dispatcher(outbound_allowed_networks=()).start()

    errors = {hooks.wait_for_attempt(delivery_id, 1).error for delivery_id in ids}
    assert errors == {
        "This server may not connect to that address, or the address does not exist. Its operator can allow "
        "non-public networks with REGEN_OUTBOUND_ALLOWED_NETWORKS."
    }
    assert receiver.received == []


def test_what_ended_long_ago_is_forgotten(hooks, make_dispatcher, receiver):
    delivered, waiting = (
        hooks.add_delivery(receiver.url),
        hooks.add_delivery(f"http://127.0.0.1:{free_port()}/"),
    )
    make_dispatcher().start()
    hooks.wait_for(delivered, status="delivered")
    hooks.wait_for_attempt(waiting, 1)
    for seconds, left in ((3600, {delivered, waiting}), (-1, {waiting})):
        with hooks.database.write() as session:
            rows.forget_deliveries(session, ended_for=seconds, limit=100)
        assert {row.id for row in hooks.deliveries()} == left
