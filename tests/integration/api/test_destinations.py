"""The `destination` of a render over HTTP."""

import re

import pytest
from sqlalchemy import select, update

from app.accounts import service as account_service
from app.accounts.scopes import Scope
from app.destinations import queries as destinations
from app.destinations.ledger import DestinationLedger
from app.destinations.tables import Destination
from app.platform.database import Database, database_now
from app.platform.deliveries import AttemptResult
from app.platform.secrets import Secrets
from app.renders.statuses import DestinationStatus
from app.renders.tables import Render

URL = "https://bucket.example.com/films/a.mp4?X-Amz-Credential=me&X-Amz-Signature=0a1b2c3d"


@pytest.fixture
def file_id(client, clip) -> str:
    with clip.open("rb") as body:
        return client.post("/v1/files", files={"file": (clip.name, body)}).json()["file"]["id"]


def complete(database: Database, render_id: str) -> None:
    with database.write() as session:
        done = {"status": "completed", "output_key": f"renders/{render_id}/output-1.mp4"}
        session.execute(update(Render).where(Render.id == render_id).values(**done))
        destinations.begin(session, render_id=render_id)


def test_its_signature_is_kept_and_never_shown(client, database, file_id, logs):
    made = client.post("/v1/upscale", json={"file_id": file_id, "destination": URL})
    assert made.status_code == 200, made.text
    render = made.json()["render"]
    assert render["destination"] == {
        "url": "https://bucket.example.com/films/a.mp4",
        "status": "pending",
        "attempts": 0,
    }
    with database.read() as session:
        assert session.scalars(select(Render.destination)).all() == [URL]
    listed = client.get("/v1/renders").text
    assert "0a1b2c3d" not in made.text + listed + repr(logs)


def test_a_failed_render_sends_nothing_and_its_retry_has_the_same_destination(client, database, file_id):
    made = client.post("/v1/upscale", json={"file_id": file_id, "destination": URL}).json()["render"]
    failed = client.post(f"/v1/renders/{made['id']}/cancel").json()["render"]["destination"]
    assert (failed["status"], failed["message"]) == (
        "failed",
        "There is no result to send: the render failed.",
    )
    retried = client.post(f"/v1/renders/{made['id']}/retry").json()["render"]
    assert retried["destination"]["status"] == "pending"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("ftp://example.com/a", "The URL must begin with http:// or https://."),
        ("https://user:pass@example.com/a", "must not carry a user name"),
        ("http://127.0.0.1:9000/a?X-Amz-Signature=0a1b2c3d", "may not connect to that address"),
        ("https://example.com/" + "a" * 8192, "longer than 8192 characters"),
    ],
)
def test_addresses_to_which_nothing_is_ever_sent_are_refused(client, file_id, url, told):
    answer = client.post("/v1/upscale", json={"file_id": file_id, "destination": url})
    assert answer.status_code == 400
    assert told in answer.json()["errors"][0]["message"]
    assert answer.json()["errors"][0]["message"].startswith("`destination`: ")
    assert "0a1b2c3d" not in answer.text


def test_a_long_presigned_url_is_taken(client, file_id):
    long = URL + "&X-Amz-Security-Token=" + "t" * 4000
    assert client.post("/v1/upscale", json={"file_id": file_id, "destination": long}).status_code == 200


@pytest.fixture
def idle(serve, settings, key):
    """A client of a server that sends nothing, so that nothing changes in the meantime."""
    return serve(settings.model_copy(update={"destination_concurrency": 0}), key=key)


def give_up(database: Database, render_id: str) -> None:
    """As after a final answer, whose address has expired."""
    with database.write() as session:
        ended = {"status": "failed", "retry_at": None, "failures": 1}
        session.execute(update(Destination).where(Destination.id == render_id).values(**ended))
        destinations.show(session, render_id, DestinationStatus.FAILED, message="It answered 403.")


def make(client, clip, **fields: str) -> dict:
    with clip.open("rb") as body:
        answer = client.post("/v1/upscale", files={"file": (clip.name, body)}, data=fields)
    return answer.json()["render"]


def refusal(answer) -> str:
    assert answer.status_code == 409, answer.text
    return answer.json()["errors"][0]["message"]


def test_a_result_is_sent_again_to_the_same_or_another_address(idle, database, clip, logs):
    render_id = make(idle, clip, destination=URL)["id"]
    again = f"/v1/renders/{render_id}/deliver"
    assert "not completed" in refusal(idle.post(again))
    complete(database, render_id)
    measured = idle.get("/metrics").text
    assert "regen_destinations_waiting 1.0" in measured
    assert 'regen_destination_attempts_total{outcome="delivered"}' in measured
    late = float(re.search(r"^regen_destinations_overdue_seconds (\S+)$", measured, re.MULTILINE)[1])
    assert 0 <= late < 60
    give_up(database, render_id)
    shown = idle.get(f"/v1/renders/{render_id}").json()["render"]["destination"]
    assert (shown["status"], shown["message"]) == ("failed", "It answered 403.")

    answer = idle.post(again)
    assert answer.status_code == 200, answer.text
    shown = answer.json()["render"]["destination"]
    assert shown == {"url": URL.partition("?")[0], "status": "pending", "attempts": 0}

    give_up(database, render_id)
    other = "https://other.example.com/b.mp4?X-Amz-Signature=9f8e7d6c"
    answer = idle.post(again, json={"destination": other})
    assert answer.json()["render"]["destination"]["url"] == other.partition("?")[0]
    with database.read() as session:
        row = session.get_one(Destination, render_id)
        assert (row.status, row.failures, row.retry_at is not None) == ("pending", 0, True)
        assert session.get_one(Render, render_id).destination == other
    assert "9f8e7d6c" not in answer.text + repr(logs)


def test_one_that_is_being_sent_is_left_alone(idle, database, clip):
    render_id = make(idle, clip, destination=URL)["id"]
    again = f"/v1/renders/{render_id}/deliver"
    complete(database, render_id)
    ledger = DestinationLedger(database=database, lease_seconds=60.0)
    (due,) = ledger.due(limit=1)
    claimed = ledger.claim(due)
    assert idle.post(again).json()["render"]["destination"]["status"] == "delivering"
    told = refusal(idle.post(again, json={"destination": "https://other.example.com/b.mp4"}))
    assert "being sent just now" in told
    ledger.note(claimed, AttemptResult())
    with database.read() as session:
        assert session.get_one(Destination, render_id).status == "delivered"
        assert session.get_one(Render, render_id).destination == URL


def test_what_cannot_be_sent_again(idle, database, clip):
    without = make(idle, clip)["id"]
    complete(database, without)
    assert "without a `destination`" in refusal(idle.post(f"/v1/renders/{without}/deliver"))
    render_id = make(idle, clip, destination=URL)["id"]
    again = f"/v1/renders/{render_id}/deliver"
    complete(database, render_id)
    private = idle.post(again, json={"destination": "http://127.0.0.1:9000/a"})
    assert private.status_code == 400
    assert private.json()["errors"][0]["message"].startswith("`destination`: ")
    unknown = idle.post(again, json={"url": URL})
    assert unknown.status_code == 400 and "`url`" in unknown.text
    with database.write() as session:
        session.execute(update(Render).values(files_removed_at=database_now()))
    assert "no longer stored" in refusal(idle.post(again))
    assert idle.post(again, headers={"Authorization": "Bearer nobody's"}).status_code == 401
    assert idle.post("/v1/renders/0000000000000000/deliver").status_code == 404


def test_an_administrator_sends_the_result_of_another_user_again(
    serve, settings, database, clip, idle, make_key
):
    make_key("bob")
    with database.write() as session:
        admin_key = account_service.create_key(
            session, user_name="bob", key_name="all", keys=Secrets.load(settings), scopes=set(Scope)
        ).key
    admin = serve(settings.model_copy(update={"destination_concurrency": 0}), key=admin_key)
    render_id = make(idle, clip, destination=URL)["id"]
    complete(database, render_id)
    give_up(database, render_id)
    assert admin.post(f"/v1/renders/{render_id}/deliver").status_code == 404
    answer = admin.post(f"/v1/admin/renders/{render_id}/deliver")
    assert answer.json()["render"]["destination"]["status"] == "pending"
    assert admin.post("/v1/admin/renders/nothing/deliver").status_code == 404
