"""GET /v1/files and /v1/renders in pages, DELETE /v1/files/{id}, POST /v1/renders/{id}/retry."""

import base64
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from app.files.tables import File
from app.platform.database import Database
from app.platform.errors import PermanentError
from app.platform.pagination import Cursor
from app.renders.tables import Render
from app.work.ledger import WorkLedger


@pytest.fixture
def uploaded(client: httpx.Client, clip: Any) -> dict[str, Any]:
    with clip.open("rb") as body:
        return client.post("/v1/files", files={"file": (clip.name, body)}).json()["file"]


@pytest.fixture
def submit(client: httpx.Client, uploaded: dict[str, Any]) -> Callable[..., dict[str, Any]]:
    def submit(**options: Any) -> dict[str, Any]:
        answer = client.post("/v1/upscale", json={"file_id": uploaded["id"], **options})
        assert answer.status_code == 200, answer.text
        return answer.json()["render"]

    return submit


def pages(client: httpx.Client, path: str, **query: Any) -> list[list[str]]:
    """The ids of each page."""
    kind = path.rsplit("/", 1)[1]
    found = []
    while True:
        body = client.get(path, params=query).raise_for_status().json()
        found.append([item["id"] for item in body[kind]])
        if "nextCursor" not in body:
            return found
        query["cursor"] = body["nextCursor"]


def test_pages_show_every_render_once_the_newest_first(
    client: httpx.Client, submit: Callable[..., dict[str, Any]]
) -> None:
    ids = [submit()["id"] for _ in range(5)][::-1]
    assert pages(client, "/v1/renders", limit=2) == [ids[:2], ids[2:4], ids[4:]]
    assert pages(client, "/v1/renders", limit=5) == [ids]
    assert pages(client, "/v1/renders") == [ids]

    first = client.get("/v1/renders", params={"limit": 2}).json()
    newer = submit()["id"]
    rest = client.get("/v1/renders", params={"limit": 9, "cursor": first["nextCursor"]}).json()
    assert [render["id"] for render in rest["renders"]] == ids[2:]
    assert pages(client, "/v1/renders", limit=1)[0] == [newer]


def test_a_list_shows_of_each_render_what_it_shows_itself(
    client: httpx.Client, submit: Callable[..., dict[str, Any]]
) -> None:
    for priority in (0, 5, 0):
        submit(priority=priority)
    listed = client.get("/v1/renders").json()["renders"]
    assert [render["queuePosition"] for render in listed] == [3, 1, 2]
    for render in listed:
        alone = client.get(f"/v1/renders/{render['id']}").json()["render"]
        url, again = render.pop("inputFileURL"), alone.pop("inputFileURL")
        assert url.split("?")[0] == again.split("?")[0]
        assert render == alone


def test_renders_of_the_same_moment_are_told_apart(
    client: httpx.Client, submit: Callable[..., dict[str, Any]], database: Database
) -> None:
    ids = sorted((submit()["id"] for _ in range(4)), reverse=True)
    with database.write() as session:
        moment = session.scalars(select(Render.created_at)).first()
        session.execute(update(Render).values(created_at=moment))
    assert pages(client, "/v1/renders", limit=1) == [[one] for one in ids]


def test_filters(client: httpx.Client, submit: Callable[..., dict[str, Any]], database: Database) -> None:
    lite, heavy = submit()["id"], submit(engine="regen-4x")["id"]
    with database.write() as session:
        session.execute(update(Render).where(Render.id == lite).values(status="completed"))
    assert pages(client, "/v1/renders", status="queued") == [[heavy]]
    assert pages(client, "/v1/renders", status="completed", engine="regen-4x-lite") == [[lite]]
    assert pages(client, "/v1/renders", status="failed") == [[]]
    assert pages(client, "/v1/renders", engine="regen-4x") == [[heavy]]


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"limit": "0"}, "`limit`"),
        ({"limit": "101"}, "`limit`"),
        ({"limit": "x"}, "`limit`"),
        ({"status": "done"}, "`status`"),
        ({"engine": "regen-8x"}, "`engine`"),
        ({"cursor": ""}, None),
        ({"cursor": " ", "limit": "", "status": "", "engine": ""}, None),
        ({"cursor": "x"}, "`cursor`"),
        ({"cursor": "AAAA" * 12}, "`cursor`"),
        ({"cursor": "x" * 65}, "`cursor`"),
        ({"cursor": "é"}, "`cursor`"),
        ({"cursor": base64.urlsafe_b64encode(b"\xff" * 8 + b"A" * 16).decode()}, None),
        ({"cursor": base64.urlsafe_b64encode(b"\x7f" * 8 + b"A" * 16).decode()}, "`cursor`"),
    ],
)
def test_a_faulty_question_is_a_400(
    client: httpx.Client, query: dict[str, str], sentence: str | None
) -> None:
    for path in ("/v1/renders",) if {"status", "engine"} & query.keys() else ("/v1/renders", "/v1/files"):
        answer = client.get(path, params=query)
        if sentence is None:
            assert answer.status_code == 200
        else:
            assert answer.status_code == 400
            assert sentence in answer.json()["errors"][0]["message"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=40))
def test_whatever_a_cursor_says_it_is_a_place_or_refused(text: str) -> None:
    from app.platform.errors import InvalidRequest

    try:
        place = Cursor.parse(text)
    except InvalidRequest:
        return
    assert Cursor.parse(str(place)) == place


def test_another_users_rows_are_not_listed(
    client: httpx.Client, submit: Callable[..., dict[str, Any]], make_key: Callable[[str], str]
) -> None:
    submit()
    stranger = {"Authorization": f"Bearer {make_key('bob')}"}
    assert client.get("/v1/renders", headers=stranger).json() == {"renders": []}
    assert client.get("/v1/files", headers=stranger).json() == {"files": []}
    assert client.get("/v1/renders", headers={"Authorization": "Bearer x"}).status_code == 401


def test_a_file_is_deleted_once_no_render_needs_it(
    client: httpx.Client,
    uploaded: dict[str, Any],
    submit: Callable[..., dict[str, Any]],
    stored_files: Callable[[], list[str]],
    make_key: Callable[[str], str],
) -> None:
    path = f"/v1/files/{uploaded['id']}"
    assert pages(client, "/v1/files") == [[uploaded["id"]]]
    assert client.delete(path, headers={"Authorization": f"Bearer {make_key('bob')}"}).status_code == 404
    render = submit()
    refused = client.delete(path)
    assert refused.status_code == 409
    assert "needs this file" in refused.json()["errors"][0]["message"]
    assert client.get(path).status_code == 200

    client.post(f"/v1/renders/{render['id']}/cancel").raise_for_status()
    assert stored_files() != []
    deleted = client.delete(path)
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert stored_files() == []
    assert client.get(path).status_code == 404
    assert client.delete(path).status_code == 404
    assert pages(client, "/v1/files") == [[]]
    assert client.post("/v1/upscale", json={"file_id": uploaded["id"]}).status_code == 404
    shown = client.get(f"/v1/renders/{render['id']}").json()["render"]
    assert "inputFileURL" not in shown and "filesRemovedAt" in shown


def test_a_file_whose_bytes_could_not_be_removed_is_left_to_the_clean_up(
    client: httpx.Client, uploaded: dict[str, Any], database: Database, app: Any, monkeypatch: Any
) -> None:
    from app.platform.errors import StorageError

    def fail(_key: str) -> None:
        raise StorageError("It is away.")

    monkeypatch.setattr(app.state.resources.storage, "delete", fail)
    assert client.delete(f"/v1/files/{uploaded['id']}").status_code == 503
    assert client.get(f"/v1/files/{uploaded['id']}").status_code == 404
    with database.read() as session:
        file = session.get_one(File, uploaded["id"])
        assert file.removed_at is not None and file.erased_at is None


def test_a_failed_render_is_tried_again(
    client: httpx.Client, submit: Callable[..., dict[str, Any]], database: Database
) -> None:
    asked = {"engine": "regen-4x", "target_fps": 29.97, "retime": "blend", "quality": True, "priority": 3}
    failed = submit(**asked)
    ledger = WorkLedger(database=database, worker="one", lease_seconds=30, max_attempts=3)
    claim = ledger.claim()
    assert claim is not None
    early = client.post(f"/v1/renders/{failed['id']}/retry")
    assert early.status_code == 409
    ledger.failed(claim, PermanentError("It is damaged."))

    answer = client.post(f"/v1/renders/{failed['id']}/retry")
    assert answer.status_code == 200
    again = answer.json()["render"]
    assert answer.headers["Location"].endswith(f"/v1/renders/{again['id']}")
    assert again["retryOf"] == failed["id"] != again["id"]
    assert again["status"] == "queued"
    same = (
        "engine",
        "targetFps",
        "targetFpsExact",
        "retime",
        "priority",
        "fileId",
        "cost",
        "input",
        "output",
    )
    assert {name: again[name] for name in same} == {name: failed[name] for name in same}
    with database.read() as session:
        assert session.get_one(Render, again["id"]).measures_quality
    old = client.get(f"/v1/renders/{failed['id']}").json()["render"]
    assert old["status"] == "failed" and "retryOf" not in old

    client.post(f"/v1/renders/{again['id']}/cancel").raise_for_status()
    client.delete(f"/v1/files/{failed['fileId']}").raise_for_status()
    gone = client.post(f"/v1/renders/{failed['id']}/retry")
    assert (gone.status_code, "upload it again" in gone.text) == (409, True)
    assert client.post("/v1/renders/0000000000000000/retry").status_code == 404
