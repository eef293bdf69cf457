"""The engine that an estimate suggests."""

from pathlib import Path

import pytest
from sqlalchemy import select, update

from app.estimates import suggestions
from app.files.tables import File
from app.platform.media import picture_kind
from app.platform.storage.local import LocalStorage

DRAWN = {"frames": 4, "flat": 0.7, "soft": 0.3, "colour": 60.0}


def stored_statistics(database) -> list:
    with database.read() as session:
        return list(session.scalars(select(File.picture_statistics)))


@pytest.fixture
def file_id(client, clip) -> str:
    with clip.open("rb") as body:
        return client.post("/v1/files", files={"file": (clip.name, body)}).json()["file"]["id"]


def estimate(client, file_id: str) -> dict:
    answer = client.post("/v1/estimates", json={"file_id": file_id})
    assert answer.status_code == 200, answer.text
    return answer.json()["estimate"]


def test_a_file_is_looked_at_for_its_first_estimate_alone(client, database, file_id, spool_files):
    assert stored_statistics(database) == [None]
    first = estimate(client, file_id)
    assert first["engine"] == "regen-4x-lite"
    assert first["suggestedEngine"]["engine"] == "regen-4x"
    assert "costs 2 times as much as `regen-4x-lite`" in first["suggestedEngine"]["reason"]
    assert spool_files() == []
    with database.write() as session:
        session.execute(update(File).values(picture_statistics=DRAWN))
    assert estimate(client, file_id)["suggestedEngine"]["engine"] == "regen-4x-anime"


def test_an_upload_is_looked_at_without_being_kept(client, clip, spool_files, stored_files):
    with clip.open("rb") as body:
        answer = client.post(
            "/v1/estimates", files={"file": (clip.name, body)}, data={"engine": "regen-4x-anime"}
        )
    assert answer.json()["estimate"]["suggestedEngine"]["engine"] == "regen-4x"
    assert (spool_files(), stored_files()) == ([], [])


def test_pictures_of_no_clear_kind_have_no_suggestion(client, database, file_id):
    with database.write() as session:
        session.execute(update(File).values(picture_statistics=DRAWN | {"flat": 0.43}))
    assert "suggestedEngine" not in estimate(client, file_id)


def test_of_a_large_file_in_a_bucket_the_ends_are_read(
    client, database, media, monkeypatch: pytest.MonkeyPatch, spool_files
):
    """The index of this MP4 is at its end, and the middle is not read."""
    read: list[int] = []
    whole = LocalStorage.read

    def counted(self, key: str, *, offset: int = 0, length: int | None = None):
        assert length is not None
        read.append(length)
        return whole(self, key, offset=offset, length=length)

    path: Path = media / "bunny-480x270-25fps.mp4"
    with path.open("rb") as body:
        file_id = client.post("/v1/files", files={"file": (path.name, body)}).json()["file"]["id"]
    monkeypatch.setattr(LocalStorage, "links_files", False)
    monkeypatch.setattr(LocalStorage, "read", counted)
    monkeypatch.setattr(suggestions, "READ_BYTES", 200_000)
    assert estimate(client, file_id)["suggestedEngine"]["engine"] == "regen-4x"
    assert read == [200_000, 200_000]
    assert stored_statistics(database)[0]["frames"] == picture_kind.FRAMES
    assert spool_files() == []


def test_no_estimate_fails_or_waits_because_of_it(client, database, file_id, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(suggestions, "LONGEST_SECONDS", 0.0)
    assert "suggestedEngine" not in estimate(client, file_id)
    # Another estimate looks again.
    assert stored_statistics(database) == [None]
