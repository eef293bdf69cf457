"""The API while its S3 server is away: uploads are refused and leave nothing, renders are shown all the same."""

from collections.abc import Iterator

import httpx
import pytest
from sqlalchemy import func, select

from app.files.tables import File
from app.platform.settings import Settings
from app.platform.storage.keys import input_key
from app.renders.tables import Render
from tests.servers.s3 import S3Bucket, S3Server


@pytest.fixture
def settings(settings: Settings, s3_bucket: S3Bucket) -> Settings:
    return Settings(**{**settings.model_dump(exclude_unset=True), **s3_bucket.settings})


@pytest.fixture
def falling_server(s3_server: S3Server) -> Iterator[S3Server]:
    """A server that a test may kill."""
    yield s3_server
    s3_server.start()


def test_an_outage_of_the_storage(client, clip, database, spool_files, s3_bucket, falling_server):
    def upload() -> httpx.Response:
        with clip.open("rb") as body:
            return client.post("/v1/upscale", files={"file": ("clip.mp4", body)})

    first = upload().json()["render"]
    second = client.post("/v1/upscale", json={"file_id": first["fileId"]}).json()["render"]
    assert client.post(f"/v1/renders/{first['id']}/cancel").status_code == 200

    falling_server.kill()
    for answer in (upload(), client.delete(f"/v1/renders/{first['id']}")):
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert answer.json()["errors"] == [
            {"message": "The storage cannot be used just now. Try again soon."}
        ]
    assert spool_files() == []
    for render in (first, second):
        assert "inputFileURL" in client.get(f"/v1/renders/{render['id']}").json()["render"]
    third = client.post("/v1/upscale", json={"file_id": first["fileId"]})
    assert third.status_code == 200, "what needs no storage goes on"
    assert client.post(f"/v1/renders/{second['id']}/cancel").status_code == 200

    falling_server.start()
    assert s3_bucket.keys() == [input_key(first["fileId"])]
    with database.read() as session:
        counts = [session.scalar(select(func.count()).select_from(table)) for table in (File, Render)]
    assert counts == [1, 3]
    assert upload().status_code == 200
    assert client.delete(f"/v1/renders/{first['id']}").status_code == 204
