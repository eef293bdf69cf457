"""The `destination` of a render over HTTP."""

import pytest
from sqlalchemy import select, update

from app.accounts import service as account_service
from app.accounts.scopes import Scope
from app.destinations import queries as destinations
from app.platform.database import Database
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


def test_an_administrator_sends_a_result_again(serve, settings, database, clip, key):
    with database.write() as session:
        admin_key = account_service.create_key(
            session, user_name="ann", key_name="all", keys=Secrets.load(settings), scopes=set(Scope)
        ).key
    # Nothing is sent, so that nothing changes in the meantime.
    admin = serve(settings.model_copy(update={"destination_concurrency": 0}), key=admin_key)
    with clip.open("rb") as body:
        made = admin.post("/v1/upscale", files={"file": (clip.name, body)}, data={"destination": URL}).json()[
            "render"
        ]
    again = f"/v1/admin/renders/{made['id']}/deliver"
    assert admin.post(again).status_code == 409
    complete(database, made["id"])
    with database.write() as session:
        destinations.show(session, made["id"], DestinationStatus.FAILED, message="It answered 403.")
    shown = admin.get(f"/v1/renders/{made['id']}").json()["render"]["destination"]
    assert (shown["status"], shown["message"]) == ("failed", "It answered 403.")
    answer = admin.post(again)
    assert answer.status_code == 200
    shown = answer.json()["render"]["destination"]
    assert shown["status"] == "pending" and "message" not in shown
    assert admin.post("/v1/admin/renders/nothing/deliver").status_code == 404
