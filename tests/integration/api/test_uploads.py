"""Uploads in parts, over HTTP: on local storage, on an S3 server, and with PostgreSQL."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import select

from app.cleanup.orphans import find_orphans
from app.files.tables import File
from app.platform import clock
from app.platform.errors import Unavailable
from app.platform.secrets import Secrets
from app.platform.settings import Settings
from app.platform.storage import open_storage
from app.uploads import service as upload_service
from app.uploads.tables import Upload

PART = 5 * 1024**2


@pytest.fixture(scope="session")
def film(clip: Path) -> bytes:
    """A real video of more than one part: the clip, and a box that players skip."""
    return clip.read_bytes() + (PART + 1000).to_bytes(4, "big") + b"free" + bytes(PART + 992)


def open_upload(client: httpx.Client, content: bytes, *, name: str = "my film.mp4", **headers: str) -> dict:
    asked = {"name": name, "size_bytes": len(content), "part_size_bytes": PART}
    answer = client.post("/v1/uploads", json=asked, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()["upload"]


def send_part(upload: dict, content: bytes, number: int) -> dict:
    """As any HTTP client does it, without a key."""
    part = upload["parts"][number - 1]
    start = (number - 1) * upload["partSizeBytes"]
    answer = httpx.put(part["url"], content=content[start : start + part["sizeBytes"]], timeout=60)
    assert answer.status_code == 200, answer.text
    return {"number": number, "etag": answer.headers["ETag"]}


def send_all(upload: dict, content: bytes) -> list[dict]:
    return [send_part(upload, content, part["number"]) for part in upload["parts"]]


def complete(client: httpx.Client, upload: dict, parts: list[dict]) -> httpx.Response:
    return client.post(f"/v1/uploads/{upload['id']}/complete", json={"parts": parts}, timeout=120)


def state(client: httpx.Client, upload: dict) -> dict:
    return client.get(f"/v1/uploads/{upload['id']}").json()["upload"]


def messages(answer: httpx.Response) -> list[str]:
    return [error["message"] for error in answer.json()["errors"]]


class TestFromPartsToAFile:
    def test_the_whole_way(self, client, film, spool_files, stored_files, settings):
        upload = open_upload(client, film)
        assert upload["status"] == "open"
        assert (upload["name"], upload["sizeBytes"], upload["partCount"]) == ("my film.mp4", len(film), 2)
        assert [part["sizeBytes"] for part in upload["parts"]] == [PART, len(film) - PART]

        answer = complete(client, upload, send_all(upload, film))

        assert answer.status_code == 200, answer.text
        file = answer.json()["file"]
        assert (file["name"], file["sizeBytes"]) == ("my film.mp4", len(film))
        assert (file["width"], file["height"]) == (240, 136)
        assert client.get(f"/v1/files/{file['id']}").json()["file"] == file
        assert client.get("/v1/uploads").json()["uploads"] == []
        ended = state(client, upload)
        assert (ended["status"], ended["fileId"]) == ("completed", file["id"])
        render = client.post("/v1/upscale", json={"file_id": file["id"]}).json()["render"]
        assert httpx.get(render["inputFileURL"]).content == film
        assert spool_files() == []
        assert stored_files() == [f"files/{file['id']}/input"]
        assert list((settings.storage_dir / ".parts").iterdir()) == []

    def test_after_a_lost_connection_the_rest_is_sent(self, client, film):
        upload = open_upload(client, film)
        etag = send_part(upload, film, 2)["etag"].strip('"')

        found = state(client, upload)
        assert found["receivedParts"] == [{"number": 2, "etag": etag, "sizeBytes": len(film) - PART}]
        assert [one["id"] for one in client.get("/v1/uploads").json()["uploads"]] == [upload["id"]]
        fresh = client.get(f"/v1/uploads/{upload['id']}/parts", params={"after": 0, "limit": 1}).json()
        assert fresh["nextAfter"] == 1
        first = send_part({**upload, "parts": fresh["parts"]}, film, 1)

        assert complete(client, upload, [first, {"number": 2, "etag": etag}]).status_code == 200

    def test_completing_again_answers_the_same(self, client, film):
        upload = open_upload(client, film)
        parts = send_all(upload, film)

        answers = [complete(client, upload, parts) for _ in range(2)]

        assert [answer.status_code for answer in answers] == [200, 200]
        assert answers[0].json() == answers[1].json()
        assert client.delete(f"/v1/uploads/{upload['id']}").status_code == 409

    def test_a_small_file_is_one_part(self, client, clip):
        content = clip.read_bytes()
        asked = {"name": "../a/clip.mp4", "size_bytes": len(content)}
        upload = client.post("/v1/uploads", json=asked).json()["upload"]
        assert (upload["name"], upload["partSizeBytes"]) == ("clip.mp4", 16 * 1024**2)

        assert complete(client, upload, send_all(upload, content)).status_code == 200

    def test_a_request_that_is_sent_twice_opens_one(self, client, film):
        first = open_upload(client, film, **{"Idempotency-Key": "a"})
        second = open_upload(client, film, **{"Idempotency-Key": "a"})

        assert first["id"] == second["id"]
        other = {"name": "other", "size_bytes": 1}
        answer = client.post("/v1/uploads", json=other, headers={"Idempotency-Key": "a"})
        assert answer.status_code == 409


class TestWhatIsRefused:
    def test_a_part_that_is_sent_again_ends_the_request_before(self, client, film, settings):
        upload = open_upload(client, film)
        part = upload["parts"][0]
        content, sent = film[: part["sizeBytes"]], {}

        def slowly():
            half = len(content) // 2
            yield content[:half]
            sent.update(send_part(upload, film, 1))
            yield content[half:]

        length = {"Content-Length": str(len(content))}
        answer = httpx.put(part["url"], content=slowly(), headers=length, timeout=60)
        assert answer.status_code == 409 and "being sent again" in answer.text
        assert [part["etag"] for part in state(client, upload)["receivedParts"]] == [sent["etag"].strip('"')]
        assert list((settings.root / "storage" / ".incoming").iterdir()) == []

    def test_parts_that_are_not_as_named(self, client, film):
        upload = open_upload(client, film)
        first = send_part(upload, film, 1)

        answer = complete(client, upload, [{**first, "etag": "0" * 32}, {"number": 3, "etag": "x"}])

        assert answer.status_code == 400
        assert messages(answer) == [
            "There is no part 3 in this upload of 2.",
            "The ETag of part 1 is not that of the received part.",
            "Part 2 has not arrived.",
        ]
        assert state(client, upload)["status"] == "open"
        assert complete(client, upload, [first, send_part(upload, film, 2)]).status_code == 200

    def test_faults_are_bounded(self, client):
        asked = {"name": "a", "size_bytes": 100 * PART, "part_size_bytes": PART}
        upload = client.post("/v1/uploads", json=asked).json()["upload"]

        told = messages(complete(client, upload, [{"number": 1, "etag": "x"}]))

        assert len(told) == 21
        assert told[-1] == "There are 80 more such faults."

    @pytest.mark.parametrize("content", [b"this is no video " * 100])
    def test_no_video(self, client, content, stored_files, spool_files):
        upload = open_upload(client, content)
        parts = send_all(upload, content)

        assert complete(client, upload, parts).status_code == 415
        assert state(client, upload)["status"] == "ended"
        assert complete(client, upload, parts).status_code == 409
        assert httpx.put(upload["parts"][0]["url"], content=content).status_code == 404
        assert stored_files() == spool_files() == []

    def test_a_video_over_a_limit(self, settings, serve, key, film, stored_files):
        client = serve(settings.model_copy(update={"max_duration_seconds": 1}), key=key)
        upload = open_upload(client, film)

        assert complete(client, upload, send_all(upload, film)).status_code == 413
        assert state(client, upload)["status"] == "ended"
        assert stored_files() == []

    def test_sizes_and_numbers(self, settings, serve, key):
        client = serve(
            settings.model_copy(update={"max_upload_bytes": 10**12, "max_open_uploads": 1}), key=key
        )

        def asked(**fields: object) -> httpx.Response:
            return client.post("/v1/uploads", json={"name": "a", "size_bytes": 1000, **fields})

        assert asked(size_bytes=10**12 + 1).status_code == 413
        assert asked(size_bytes=0).status_code == 400
        assert asked(size_bytes="5").status_code == 400
        assert asked(name="").status_code == 400
        assert asked(part_size_bytes=PART - 1).status_code == 400
        assert messages(asked(size_bytes=10**12, part_size_bytes=PART)) == [
            "With this `part_size_bytes` there would be more than 10,000 parts."
        ]
        large = asked(size_bytes=10**12).json()["upload"]
        assert (large["partSizeBytes"], large["partCount"]) == (96 * 1024**2, 9935)
        assert len(large["parts"]) == 1000
        refused = asked()
        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) > 0

    def test_what_is_another_users(self, client, film, make_key):
        upload = open_upload(client, film)
        other = {"Authorization": f"Bearer {make_key('bob')}"}

        for method, path in (("GET", ""), ("GET", "/parts"), ("DELETE", ""), ("POST", "/complete")):
            body = {"parts": [{"number": 1, "etag": "x"}]} if method == "POST" else None
            answer = client.request(method, f"/v1/uploads/{upload['id']}{path}", headers=other, json=body)
            assert (answer.status_code, messages(answer)) == (404, ["Upload not found"]), (method, path)
        assert client.get("/v1/uploads", headers=other).json() == {"uploads": []}


class TestTheEnd:
    def test_aborting_frees_what_came_in(self, client, film, settings):
        upload = open_upload(client, film)
        part = send_part(upload, film, 1)

        answers = [client.delete(f"/v1/uploads/{upload['id']}").status_code for _ in range(2)]

        assert answers == [204, 204]
        assert state(client, upload)["status"] == "ended"
        assert complete(client, upload, [part]).status_code == 409
        assert client.get(f"/v1/uploads/{upload['id']}/parts").status_code == 409
        assert list((settings.storage_dir / ".parts").iterdir()) == []

    def test_expiry(self, client, film, monkeypatch):
        upload = open_upload(client, film)
        parts = send_all(upload, film)
        later = clock.now() + timedelta(hours=25)
        monkeypatch.setattr(clock, "now", lambda: later)

        assert state(client, upload)["status"] == "ended"
        assert client.get("/v1/uploads").json()["uploads"] == []
        assert complete(client, upload, parts).status_code == 409

    def test_a_crash_while_it_becomes_a_file(self, client, film, settings, database, monkeypatch):
        """Nobody is given anything, the object is no orphan, and completing again ends it."""
        upload = open_upload(client, film)
        parts = send_all(upload, film)
        with monkeypatch.context() as broken:

            def crash(*_arguments: object) -> None:
                raise Unavailable

            broken.setattr(upload_service, "make_file", crash)
            assert complete(client, upload, parts).status_code == 503
        storage = open_storage(settings, Secrets.load(settings))

        assert len(list(storage.list("files/"))) == 1
        assert client.get("/v1/files").json() == {"files": []}
        assert find_orphans(database, storage, least_age=timedelta(0)).keys == []
        assert complete(client, upload, parts).status_code == 200
        assert len(client.get("/v1/files").json()["files"]) == 1


class TestOnS3:
    @pytest.fixture
    def settings(self, settings, s3_bucket):
        return Settings(
            data_dir=settings.data_dir,
            broker_url=settings.broker_url,
            broker_password=settings.broker_password,
            **s3_bucket.settings,
        )

    def test_the_parts_go_to_the_s3_server(self, client, film, s3_bucket, spool_files):
        upload = open_upload(client, film)
        assert all(part["url"].startswith(s3_bucket.server.endpoint_url) for part in upload["parts"])

        parts = send_all(upload, film)
        answers = [complete(client, upload, parts) for _ in range(2)]

        file = answers[0].json()["file"]
        assert answers[1].json() == answers[0].json()
        assert s3_bucket.keys() == [f"files/{file['id']}/input"]
        assert s3_bucket.incomplete_uploads() == spool_files() == []

    def test_what_ends_without_a_file_leaves_nothing(self, client, s3_bucket):
        content = b"no video"
        aborted, refused = open_upload(client, content), open_upload(client, content)
        for upload in (aborted, refused):
            send_part(upload, content, 1)

        assert client.delete(f"/v1/uploads/{aborted['id']}").status_code == 204
        received = state(client, refused)["receivedParts"]
        assert complete(client, refused, [{"number": 1, "etag": received[0]["etag"]}]).status_code == 415

        assert s3_bucket.keys() == s3_bucket.incomplete_uploads() == []


def at_once(work: Callable[[], httpx.Response], times: int) -> list[httpx.Response]:
    with ThreadPoolExecutor(times) as pool:
        return [future.result() for future in [pool.submit(work) for _ in range(times)]]


class TestAtOnce:
    """With two servers on one database and storage."""

    @pytest.fixture(params=["sqlite", "postgresql"])
    def settings(self, request, settings):
        if request.param == "sqlite":
            return settings
        url = request.getfixturevalue("migrated_postgres_url")
        return settings.model_copy(update={"database_url": url, "secret_key": SecretStr("x" * 32)})

    def test_one_file_is_made(self, settings, serve, key, film, database):
        servers = [serve(settings, key=key) for _ in range(2)]
        upload = open_upload(servers[0], film)
        parts = send_all(upload, film)
        turns = iter([*servers, *servers])

        answers = at_once(lambda: complete(next(turns), upload, parts), 4)

        assert [answer.status_code for answer in answers] == [200] * 4
        assert len({answer.text for answer in answers}) == 1
        with database.read() as session:
            (file,) = session.scalars(select(File)).all()
            (row,) = session.scalars(select(Upload)).all()
        assert (row.file_id, row.aborted_at) == (file.id, None)

    def test_no_more_are_opened_than_may_be(self, settings, serve, key):
        limited = settings.model_copy(update={"max_open_uploads": 2})
        servers = [serve(limited, key=key) for _ in range(2)]
        turns = iter(servers * 3)

        answers = at_once(lambda: next(turns).post("/v1/uploads", json={"name": "a", "size_bytes": 1}), 6)

        assert sorted(answer.status_code for answer in answers) == [200, 200, 429, 429, 429, 429]
