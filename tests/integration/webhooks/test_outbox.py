"""What is to be told is written down with the move itself: once, as of that moment, for everybody who listens."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import event

from app.accounts import queries as account_queries
from app.platform.errors import Conflict, LeaseLost, PermanentError
from app.platform.json_values import timestamp
from app.platform.secrets import new_id
from app.renders import schemas, transitions
from app.webhooks import service as webhook_service
from app.webhooks.statuses import RENDER_EVENTS, WebhookEvent
from tests.integration.conftest import FACTS

URL = "https://studio.example.com/hook"


def complete(ledger, prepare):
    """The one render that waits, from its preparation to its end."""
    prepare(ledger, ledger.claim(), segments=1)
    ledger.segment_done(ledger.claim(), storage_key="renders/x/segment")
    claim = ledger.claim()
    ledger.finished(
        claim,
        output_key=f"renders/{claim.render_id}/output-2.mp4",
        thumbnail_key=f"renders/{claim.render_id}/thumbnail-2.jpg",
        output=FACTS,
        cost=1.5,
        warnings=["a warning"],
    )


def told(hooks):
    return sorted((row.endpoint_id or "own", row.event) for row in hooks.deliveries())


def test_every_move_is_told_to_everybody_who_listens(hooks, make_ledger, prepare):
    everything = hooks.add_endpoint(URL)
    ends = hooks.add_endpoint(URL, events=(WebhookEvent.COMPLETED, WebhookEvent.FAILED))
    disabled, strangers = hooks.add_endpoint(URL), new_id()
    with hooks.database.write() as session:
        webhook_service.change_endpoint(
            session, endpoint_id=disabled, user_id=hooks.user_id, url=None, events=None, enabled=False
        )
        account_queries.add_user(session, user_id=strangers, name="a stranger")
        webhook_service.create_endpoint(
            session, user_id=strangers, url=URL, events=RENDER_EVENTS, enabled=True, most=1
        )
    render_id = hooks.add_render(webhook_url=f"{URL}/own")

    complete(make_ledger(), prepare)

    moves = ["render.completed", "render.processing", "render.queued"]
    assert told(hooks) == sorted(
        [(everything, move) for move in moves]
        + [("own", move) for move in moves]
        + [(ends, "render.completed")]
    )
    assert {row.render_id for row in hooks.deliveries()} == {render_id}
    assert {row.url for row in hooks.deliveries() if row.endpoint_id is None} == {f"{URL}/own"}


def test_facts_are_those_of_the_event(hooks, make_ledger, prepare, render_row):
    render_id = hooks.add_render(webhook_url=URL)
    as_queued = render_row(render_id)
    complete(make_ledger(), prepare)

    facts = {row.event: row.facts for row in hooks.deliveries()}

    queued, completed = (facts[f"render.{status}"]["data"]["render"] for status in ("queued", "completed"))
    assert queued["queuePosition"] == 1
    assert (queued["status"], queued["cost"]) == ("queued", as_queued.cost)
    assert "completedAt" not in queued
    assert queued["input"]["frameRate"] == as_queued.input.frame_rate
    assert queued["createdAt"] == timestamp(as_queued.created_at)
    assert (completed["status"], completed["warnings"], completed["cost"]) == (
        "completed",
        ["a warning"],
        1.5,
    )
    assert completed["completedAt"] == timestamp(render_row(render_id).completed_at)
    assert completed["output"]["durationSeconds"] == FACTS.duration_seconds
    file = {"storage_key": "files/clip/input", "file_name": "clip.mp4"}
    assert facts["render.queued"]["links"] == {"inputFileURL": file}
    assert facts["render.completed"]["links"] == {
        "inputFileURL": file,
        "outputFileURL": {
            "storage_key": f"renders/{render_id}/output-2.mp4",
            "file_name": "clip-4x.mp4",
        },
        "thumbnailURL": {
            "storage_key": f"renders/{render_id}/thumbnail-2.jpg",
            "file_name": "clip-4x.jpg",
        },
    }
    shown = set(schemas.Render.model_json_schema()["properties"])
    assert {*queued, *completed} <= shown, "nothing but what the API shows"


def test_whatever_ends_a_render_as_failed_is_told(hooks, make_ledger, prepare):
    canceled = hooks.add_render(webhook_url=URL)
    with hooks.database.write() as session:
        transitions.cancel_render(session, render_id=canceled, user_id=hooks.user_id)
        transitions.cancel_render(session, render_id=canceled, user_id=hooks.user_id)
    broken = hooks.add_render(webhook_url=URL)
    ledger = make_ledger()
    prepare(ledger, ledger.claim(), segments=2)
    ledger.segment_done(ledger.claim(), storage_key="renders/x/segment")
    ledger.failed(ledger.claim(), PermanentError("It is broken."))

    failed = {row.render_id: row.facts for row in hooks.deliveries() if row.event == "render.failed"}
    assert {row_id: facts["data"]["render"]["error"] for row_id, facts in failed.items()} == {
        canceled: "Canceled",
        broken: "It is broken.",
    }
    assert failed[broken]["data"]["render"]["progress"] == 0.5
    assert len([row for row in hooks.deliveries() if row.event == "render.failed"]) == 2


def test_a_move_that_is_reported_twice_is_told_once(hooks, make_ledger, prepare):
    hooks.add_render(webhook_url=URL)
    ledger = make_ledger()
    claim = ledger.claim()
    prepare(ledger, claim, segments=1)
    prepare(ledger, claim, segments=1)
    with pytest.raises(LeaseLost):
        prepare(make_ledger(), claim.__class__(**vars(claim) | {"attempt": 7}), segments=1)

    assert told(hooks) == [("own", "render.processing"), ("own", "render.queued")]


def test_what_is_rolled_back_is_not_told(hooks):
    render_id = hooks.add_render(webhook_url=URL)
    with pytest.raises(ZeroDivisionError), hooks.database.write() as session:
        transitions.cancel_render(session, render_id=render_id, user_id=hooks.user_id)
        raise ZeroDivisionError

    assert told(hooks) == [("own", "render.queued")]


def test_a_user_without_webhooks_pays_one_question_a_move(hooks, make_ledger, prepare):
    statements = []
    event.listen(
        hooks.database.engine,
        "before_cursor_execute",
        lambda _connection, _cursor, statement, *_: statements.append(statement),
    )
    hooks.add_render()
    complete(make_ledger(), prepare)

    about_webhooks = [statement for statement in statements if "webhook_endpoints" in statement]
    assert len(about_webhooks) == len(("queued", "processing", "completed"))
    assert not any("webhook_deliveries" in statement for statement in statements)
    assert hooks.deliveries() == []


def test_the_most_webhooks_also_when_asked_for_at_once(hooks):
    def add(_number):
        with hooks.database.write() as session:
            try:
                webhook_service.create_endpoint(
                    session, user_id=hooks.user_id, url=URL, events=RENDER_EVENTS, enabled=True, most=3
                )
            except Conflict:
                return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sorted(threads.map(add, range(8))) == [False] * 5 + [True] * 3
