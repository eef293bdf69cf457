"""POST /v1/renders/{id}/cancel and DELETE /v1/renders/{id}, with a worker's side of the work played by a ledger."""

from collections.abc import Callable

import httpx
import pytest
from sqlalchemy import select

from app.platform.errors import LeaseLost, PermanentError, StorageError
from app.platform.secrets import Secrets
from app.platform.storage import open_storage
from app.platform.storage.keys import output_key, segment_key, thumbnail_key
from app.renders.tables import Render, Segment
from app.work.ledger import WorkLedger
from app.work.queries import Claim
from tests.integration.conftest import FACTS

STATUSES = ("queued", "pending", "processing", "completed", "failed")
UNFINISHED = STATUSES[:3]


@pytest.fixture
def ledger(database) -> WorkLedger:
    return WorkLedger(database=database, worker="one", lease_seconds=30, max_attempts=3)


@pytest.fixture
def storage(settings):
    return open_storage(settings, Secrets.load(settings))


@pytest.fixture
def put(storage, tmp_path) -> Callable[[str], None]:
    def put(key: str) -> None:
        (tmp_path / "made").write_bytes(b"x")
        storage.put_file(key, tmp_path / "made", content_type="video/mp4")

    return put


@pytest.fixture
def submitted(client, clip) -> dict:
    with clip.open("rb") as body:
        return client.post("/v1/upscale", files={"file": (clip.name, body)}).json()["render"]


@pytest.fixture
def brought_to(submitted, ledger, prepare, put) -> Callable[[str], Claim | None]:
    """Bring the render to a status, with one of its two segments done. Returns the claim that is held then."""

    def bring(status: str) -> Claim | None:
        if status == "queued":
            return None
        claim = ledger.claim()
        if status == "pending":
            return claim
        prepare(ledger, claim, segments=2)
        done = ledger.claim()
        key = segment_key(submitted["id"], position=0, attempt=done.attempt)
        put(key)
        ledger.segment_done(done, storage_key=key)
        claim = ledger.claim()
        if status == "processing":
            return claim
        if status == "failed":
            ledger.failed(claim, PermanentError("It is damaged."))
            return claim
        ledger.segment_done(claim, storage_key=key)
        finish = ledger.claim()
        keys = (output_key(submitted["id"], attempt=1), thumbnail_key(submitted["id"], attempt=1))
        for result in keys:
            put(result)
        facts = {"output": FACTS, "cost": 1.0, "warnings": []}
        ledger.finished(finish, output_key=keys[0], thumbnail_key=keys[1], **facts)
        return finish

    return bring


def cancel(client: httpx.Client, render_id: str) -> httpx.Response:
    return client.post(f"/v1/renders/{render_id}/cancel")


def sentence(answer: httpx.Response) -> str:
    (error,) = answer.json()["errors"]
    return error["message"]


def without_urls(answer: httpx.Response) -> dict:
    """URLs are signed afresh with each answer."""
    return {name: value for name, value in answer.json()["render"].items() if not name.endswith("URL")}


@pytest.mark.parametrize("status", UNFINISHED)
def test_an_unfinished_render_ends_at_once_and_its_work_with_it(
    client, submitted, brought_to, ledger, database, status
):
    claim = brought_to(status)
    answer = cancel(client, submitted["id"])
    assert answer.status_code == 200
    render = answer.json()["render"]
    assert (render["status"], render["error"]) == ("failed", "Canceled")
    assert "queuePosition" not in render
    again = cancel(client, submitted["id"]), client.get(f"/v1/renders/{submitted['id']}")
    assert [without_urls(one) for one in again] == [without_urls(answer)] * 2
    assert ledger.claim() is None
    if claim is not None:
        assert not ledger.renew(claim, frames_done=1), "the heartbeat learns of it"
        with pytest.raises(LeaseLost):
            if status == "pending":
                facts = {"source": FACTS, "output": FACTS, "cost": 1.0, "warnings": [], "segments": []}
                ledger.prepared(claim, plan="too late", **facts)
            else:
                ledger.segment_done(claim, storage_key="too late")
        ledger.failed(claim, RuntimeError("its ffmpeg was ended"))
    with database.read() as session:
        row = session.get_one(Render, submitted["id"])
        assert (row.status, row.error, row.lease_expires_at) == ("failed", "Canceled", None)
        assert row.ended_at is not None
        assert set(session.scalars(select(Segment.status))) <= {"done", "failed"}


def test_what_has_ended_stays_as_it_ended(client, submitted, brought_to):
    brought_to("failed")
    answer = cancel(client, submitted["id"])
    assert (answer.status_code, answer.json()["render"]["error"]) == (200, "It is damaged.")


def test_a_completed_render_is_not_canceled(client, submitted, brought_to):
    brought_to("completed")
    answer = cancel(client, submitted["id"])
    assert answer.status_code == 409 and "completed" in sentence(answer)
    assert client.get(f"/v1/renders/{submitted['id']}").json()["render"]["status"] == "completed"


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_a_deleted_render_is_gone_with_its_files_and_the_upload_stays(
    client, submitted, brought_to, database, stored_files, put, status
):
    brought_to(status)
    put(segment_key(submitted["id"], position=7, attempt=3))  # a zombie's
    answer = client.delete(f"/v1/renders/{submitted['id']}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert stored_files() == [f"files/{submitted['fileId']}/input"]
    for again in (
        client.get(f"/v1/renders/{submitted['id']}"),
        client.delete(f"/v1/renders/{submitted['id']}"),
        cancel(client, submitted["id"]),
    ):
        assert (again.status_code, sentence(again)) == (404, "Render not found")
    with database.read() as session:
        assert session.scalars(select(Segment.id)).all() == []
    assert client.get(f"/v1/files/{submitted['fileId']}").status_code == 200
    assert client.post("/v1/upscale", json={"file_id": submitted["fileId"]}).status_code == 200


@pytest.mark.parametrize("status", UNFINISHED)
def test_an_unfinished_render_is_not_deleted(client, submitted, brought_to, status, stored_files):
    brought_to(status)
    before = stored_files()
    answer = client.delete(f"/v1/renders/{submitted['id']}")
    assert answer.status_code == 409 and "cancel" in sentence(answer)
    assert stored_files() == before
    assert cancel(client, submitted["id"]).status_code == 200
    assert client.delete(f"/v1/renders/{submitted['id']}").status_code == 204


def test_a_delete_that_breaks_off_gives_out_nothing_and_can_be_repeated(
    client, submitted, brought_to, stored_files, monkeypatch
):
    brought_to("completed")

    def refuse(*_: object) -> None:
        raise StorageError("It is away.")

    with monkeypatch.context() as patched:
        patched.setattr("app.platform.storage.local.LocalStorage.delete", refuse)
        answer = client.delete(f"/v1/renders/{submitted['id']}")
    assert answer.status_code == 503 and int(answer.headers["Retry-After"]) > 0
    render = client.get(f"/v1/renders/{submitted['id']}").json()["render"]
    assert render["status"] == "completed" and "filesRemovedAt" in render
    assert "outputFileURL" not in render and "thumbnailURL" not in render and "inputFileURL" in render
    assert client.delete(f"/v1/renders/{submitted['id']}").status_code == 204
    assert stored_files() == [f"files/{submitted['fileId']}/input"]


def test_another_users_render_is_neither_canceled_nor_deleted(client, submitted, make_key):
    stranger = {"Authorization": f"Bearer {make_key('bob')}"}
    for answer in (
        client.post(f"/v1/renders/{submitted['id']}/cancel", headers=stranger),
        client.delete(f"/v1/renders/{submitted['id']}", headers=stranger),
    ):
        assert (answer.status_code, sentence(answer)) == (404, "Render not found")
    assert client.get(f"/v1/renders/{submitted['id']}").json()["render"]["status"] == "queued"


def test_no_key_cancels_or_deletes_nothing(stranger):
    assert stranger.post("/v1/renders/x/cancel").status_code == 401
    assert stranger.delete("/v1/renders/x").status_code == 401


@pytest.mark.parametrize("strange", ["%00", "a%00b", "%D9%A1", "x" * 500])
def test_strange_ids_are_not_found(client, strange):
    assert cancel(client, strange).status_code == 404
    assert client.delete(f"/v1/renders/{strange}").status_code == 404
