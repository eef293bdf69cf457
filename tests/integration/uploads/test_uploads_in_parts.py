"""Uploads in parts that did not become files: the clean-up frees what they left, and nothing else."""

from datetime import timedelta

import pytest

from app.cleanup.orphans import find_orphans
from app.cleanup.service import COMPLETING_SECONDS, CleanUp, Removed, RetentionRules
from app.platform import clock
from app.platform.errors import KeyNotFound
from app.platform.secrets import new_id
from app.platform.settings import Settings
from app.platform.storage.contract import StoredPart
from app.platform.storage.keys import input_key
from app.uploads.service import put_together, received_parts
from app.uploads.tables import Upload
from tests.integration.aged_rows import AgedRows


@pytest.fixture
def clean_up(place: AgedRows):
    return CleanUp(
        database=place.database, storage=place.storage, rules=RetentionRules.from_settings(Settings())
    )


def add_upload(place: AgedRows, *, expired_for: float = -60.0, **columns: object) -> Upload:
    file_id = new_id()
    moment = clock.now()
    upload = Upload(
        id=new_id(),
        user_id=place.file(place.add_file(age=1, is_stored=False)).user_id,
        file_id=file_id,
        name="film.mov",
        size_bytes=1,
        part_size_bytes=5 * 1024**2,
        multipart_id=place.storage.open_parts(input_key(file_id), content_type="video/mp4"),
        created_at=moment,
        expires_at=moment - timedelta(seconds=expired_for),
        **columns,
    )
    with place.database.write() as session:
        session.add(upload)
    return upload


def test_those_that_ended_are_cleared_away_and_no_others(place: AgedRows, clean_up: CleanUp) -> None:
    open_one = add_upload(place)
    completing = add_upload(place, expired_for=COMPLETING_SECONDS - 60)
    expired = add_upload(place, expired_for=COMPLETING_SECONDS + 60)
    aborted = add_upload(place, aborted_at=clock.now())
    completed = add_upload(place, expired_for=COMPLETING_SECONDS + 60, completed_at=clock.now())
    for upload in (completing, expired, aborted, completed):
        # As after a crash between putting the parts together and the end.
        place.put(input_key(upload.file_id))

    assert clean_up.preview() == Removed(uploads_cleared=2)
    assert clean_up.run() == Removed(uploads_cleared=2)

    assert place.keys() == {input_key(upload.file_id) for upload in (completing, completed)}
    for upload, is_there in ((open_one, True), (completing, True), (expired, False), (aborted, False)):
        assert has_parts(place, upload) is is_there
    assert clean_up.run() == Removed()


def test_their_rows_are_forgotten_a_week_after_their_end(place: AgedRows, clean_up: CleanUp) -> None:
    old, young = clock.now() - timedelta(days=8), clock.now() - timedelta(days=6)
    gone = [
        add_upload(place, completed_at=old),
        add_upload(place, aborted_at=old, cleaned_at=old),
    ]
    kept = [
        add_upload(place, completed_at=young),
        add_upload(place, aborted_at=old, cleaned_at=young),
        add_upload(place),
    ]

    clean_up.run()

    with place.database.read() as session:
        known = {upload.id for upload in gone + kept if session.get(Upload, upload.id) is not None}
    assert known == {upload.id for upload in kept}


def has_parts(place: AgedRows, upload: Upload) -> bool:
    try:
        place.storage.list_parts(input_key(upload.file_id), upload.multipart_id)
    except KeyNotFound:
        return False
    return True


def test_what_is_put_together_is_no_orphan_until_it_is_cleared(place: AgedRows, clean_up: CleanUp) -> None:
    open_one, aborted = add_upload(place), add_upload(place, aborted_at=clock.now())
    cleared = add_upload(place, aborted_at=clock.now(), cleaned_at=clock.now())
    for upload in (open_one, aborted, cleared):
        place.put(input_key(upload.file_id))

    orphans = find_orphans(place.database, place.storage, least_age=timedelta(0))

    assert orphans.keys == [input_key(cleared.file_id)]


class SeveralVersions:
    """A storage that lists every version of a part, as SeaweedFS does."""

    def __init__(self) -> None:
        self.chosen: list[StoredPart] = []

    def list_parts(self, key: str, multipart_id: str) -> list[StoredPart]:
        versions = ((2, "new"), (1, "only"), (1, "only"), (2, "old"))
        return [StoredPart(number=number, etag=etag, size_bytes=5) for number, etag in versions]

    def complete_parts(self, key: str, multipart_id: str, parts: list[StoredPart]) -> None:
        self.chosen = parts


def test_of_several_versions_of_a_part_the_client_says_which() -> None:
    upload = Upload(file_id="f", multipart_id="m", size_bytes=10, part_size_bytes=5)
    storage = SeveralVersions()

    put_together(upload, {1: '"only"', 2: "new"}, storage)  # type: ignore[arg-type]

    assert [(part.number, part.etag) for part in storage.chosen] == [(1, "only"), (2, "new")]
    # Which of them counts is not known, so it is to be sent again.
    assert [part.number for part in received_parts(upload, storage)] == [1]  # type: ignore[arg-type]
