"""The Idempotency-Key header: what is sent twice is made once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select, update

from app.accounts.tables import IdempotencyKey
from app.cleanup.service import CleanUp, RetentionRules
from app.files.tables import File
from app.platform.database import Database, database_now
from app.platform.errors import PermanentError
from app.renders.tables import Render
from app.work.ledger import WorkLedger

KEY = {"Idempotency-Key": "order 17/a"}


@pytest.fixture
def upload(client: httpx.Client, clip: Any) -> Callable[..., httpx.Response]:
    def upload(
        path: str = "/v1/upscale", *, name: str = "clip.mp4", headers: Any = KEY, **fields: str
    ) -> httpx.Response:
        return client.post(
            path, files={"file": (name, clip.read_bytes())}, data=fields, headers=headers, timeout=120
        )

    return upload


def count(database: Database, table: type[File] | type[Render] | type[IdempotencyKey]) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def test_the_same_request_answers_with_the_same_render(
    upload: Callable[..., httpx.Response], database: Database, stored_files: Callable[[], list[str]]
) -> None:
    first, second = upload(engine="regen-4x"), upload(engine="regen-4x")
    assert (first.status_code, second.status_code) == (200, 200)
    assert second.json()["render"]["id"] == first.json()["render"]["id"]
    assert second.headers["Location"] == first.headers["Location"]
    assert ("Idempotent-Replayed" in first.headers, second.headers["Idempotent-Replayed"]) == (False, "true")
    assert (count(database, Render), count(database, File), len(stored_files())) == (1, 1, 1)

    without = upload(engine="regen-4x", headers={})
    assert without.json()["render"]["id"] != first.json()["render"]["id"]


def test_it_answers_with_the_render_as_it_is_by_now(
    client: httpx.Client, upload: Callable[..., httpx.Response]
) -> None:
    render = upload().json()["render"]
    client.post(f"/v1/renders/{render['id']}/cancel").raise_for_status()
    assert upload().json()["render"]["status"] == "failed"
    client.delete(f"/v1/renders/{render['id']}").raise_for_status()
    assert upload().status_code == 404


@pytest.mark.parametrize(
    "other", [{"engine": "regen-4x"}, {"name": "other.mp4"}, {"target_fps": "12"}, {"path": "/v1/files"}]
)
def test_another_request_with_the_key_is_refused(
    upload: Callable[..., httpx.Response], database: Database, other: dict[str, str]
) -> None:
    upload().raise_for_status()
    refused = upload(**other)
    assert refused.status_code == 409
    assert "different request" in refused.json()["errors"][0]["message"]
    assert (count(database, Render), count(database, File)) == (1, 1)


def test_other_bytes_are_another_request(
    client: httpx.Client, upload: Callable[..., httpx.Response], media: Any
) -> None:
    upload().raise_for_status()
    other = (media / "webb-320x180-25fps.mp4").read_bytes()
    assert client.post("/v1/upscale", files={"file": ("clip.mp4", other)}, headers=KEY).status_code == 409


def test_how_the_body_is_written_does_not_matter(
    client: httpx.Client, upload: Callable[..., httpx.Response]
) -> None:
    file_id = upload("/v1/files", headers={}).json()["file"]["id"]
    fields = {"file_id": file_id, "engine": "regen-4x"}
    answers = [
        client.post("/v1/upscale", json=fields, headers=KEY),
        client.post("/v1/upscale", data=fields, headers=KEY),
        client.post(
            "/v1/upscale", files={name: (None, value) for name, value in fields.items()}, headers=KEY
        ),
    ]
    assert len({answer.json()["render"]["id"] for answer in answers}) == 1


def test_a_refused_request_leaves_its_key_free(upload: Callable[..., httpx.Response]) -> None:
    assert upload(engine="none").status_code == 400
    assert upload().status_code == 200


def test_keys_are_each_users_own(
    upload: Callable[..., httpx.Response], make_key: Callable[[str], str]
) -> None:
    mine = upload().json()["render"]["id"]
    theirs = upload(headers={**KEY, "Authorization": f"Bearer {make_key('bob')}"})
    assert theirs.status_code == 200
    assert theirs.json()["render"]["id"] != mine


@pytest.mark.parametrize("faulty", ["", "é".encode("latin-1"), "x" * 256])
def test_a_faulty_key_is_a_400(upload: Callable[..., httpx.Response], faulty: Any) -> None:
    answer = upload(headers={"Idempotency-Key": faulty})
    assert answer.status_code == 400
    assert "Idempotency-Key" in answer.json()["errors"][0]["message"]


def test_files_and_retries_are_made_once_too(
    client: httpx.Client, upload: Callable[..., httpx.Response], database: Database
) -> None:
    files = [upload("/v1/files").json()["file"]["id"] for _ in range(2)]
    assert files[0] == files[1]
    render = client.post("/v1/upscale", json={"file_id": files[0]}).json()["render"]
    ledger = WorkLedger(database=database, worker="one", lease_seconds=30, max_attempts=3)
    claim = ledger.claim()
    assert claim is not None
    ledger.failed(claim, PermanentError("It is damaged."))
    again = [
        client.post(f"/v1/renders/{render['id']}/retry", headers={"Idempotency-Key": "again"})
        for _ in range(2)
    ]
    assert again[0].json()["render"]["id"] == again[1].json()["render"]["id"] != render["id"]
    assert count(database, Render) == 2


def test_fifty_at_once_make_one(
    client: httpx.Client, upload: Callable[..., httpx.Response], database: Database
) -> None:
    file_id = upload("/v1/files", headers={}).json()["file"]["id"]

    def submit(_number: int) -> httpx.Response:
        return client.post("/v1/upscale", json={"file_id": file_id}, headers=KEY, timeout=120)

    with ThreadPoolExecutor(50) as threads:
        answers = list(threads.map(submit, range(50)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["render"]["id"] for answer in answers}) == 1
    assert sum("Idempotent-Replayed" not in answer.headers for answer in answers) == 1
    assert count(database, Render) == 1


def test_uploads_at_once_leave_one_file(
    upload: Callable[..., httpx.Response], database: Database, stored_files: Callable[[], list[str]]
) -> None:
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda _number: upload(), range(6)))
    assert {answer.status_code for answer in answers} == {200}
    assert (count(database, Render), count(database, File), len(stored_files())) == (1, 1, 1)


def test_keys_are_forgotten_after_a_week(
    upload: Callable[..., httpx.Response], database: Database, app: Any, settings: Any
) -> None:
    upload().raise_for_status()
    storage = app.state.resources.storage
    clean_up = CleanUp(database=database, storage=storage, rules=RetentionRules.from_settings(settings))
    for age, left in ((6, 1), (8, 0)):
        with database.write() as session:
            session.execute(
                update(IdempotencyKey).values(created_at=database_now(plus_seconds=-age * 86_400.0))
            )
        clean_up.run()
        assert count(database, IdempotencyKey) == left
