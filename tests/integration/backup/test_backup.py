"""Backups of SQLite with local files, and of PostgreSQL with an S3 server, each restored into either kind."""

import stat
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from app import migrations
from app.backup.rows import TRANSIENT, kept_tables
from app.backup.service import make_backup, restore_backup
from app.cli.application import application
from app.platform.database import Database
from app.platform.errors import ConfigurationError
from app.platform.secrets import new_id
from app.platform.storage.contract import Storage
from app.platform.storage.keys import input_key
from app.platform.storage.local import LocalStorage
from app.renders.statuses import RenderStatus
from app.renders.tables import Render
from app.tables import Table
from app.work.ledger import WorkLedger
from app.work.queries import Job, ReadyUnits
from tests.e2e.conftest import running_server
from tests.integration.aged_rows import DAY, AgedRows

CLIP = Path(__file__).parents[2] / "media" / "short" / "bunny-240x136-25fps.mp4"


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Database]:
    """A database that does not exist yet."""
    database = Database(f"sqlite:///{tmp_path / 'other' / 'regen.db'}")
    yield database
    database.close()


@pytest.fixture
def other_storage(tmp_path: Path) -> Storage:
    return LocalStorage(root=tmp_path / "other" / "storage", url_key=b"")


def rows_of(database: Database, table: str) -> list[dict[str, object]]:
    with database.connect() as connection:
        found = connection.execute(select(Table.metadata.tables[table])).mappings().all()
    return sorted((dict(row) for row in found), key=repr)


def test_every_row_and_object_comes_back(
    place: AgedRows, storage: Storage, other: Database, other_storage: Storage, tmp_path: Path
) -> None:
    file_id = place.add_file(age=DAY)
    place.add_render(file_id, "completed", ended=60)
    place.add_render(file_id, "failed", ended=60)
    lost = place.add_file(age=DAY, is_stored=False)
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * 64)
    backup = tmp_path / "backup.zip"

    made = make_backup(backup, place.database, storage, secret=secret)
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    # The fixture's own file has no bytes either.
    assert sorted(made.missing) == sorted(["files/clip/input", input_key(lost)])
    restored = restore_backup(
        backup, other, other_storage, secret=tmp_path / "other" / "secret", scratch=tmp_path / "other"
    )

    assert restored.rows == made.rows and restored.objects == made.objects == 3
    assert (tmp_path / "other" / "secret").read_bytes() == b"s" * 64
    for table in kept_tables():
        if table.name != "segments":
            assert rows_of(other, table.name) == rows_of(place.database, table.name), table.name
    for stored in other_storage.list(""):
        assert b"".join(other_storage.read(stored.key)) == b"".join(storage.read(stored.key))
        assert other_storage.stat(stored.key).content_type == storage.stat(stored.key).content_type


def test_a_backup_of_sqlite_fills_postgresql(
    database: Database,
    place: AgedRows,
    storage: Storage,
    other: Database,
    other_storage: Storage,
    tmp_path: Path,
) -> None:
    """And one of PostgreSQL PostgreSQL: `database` is emptied by taking its rows away, not its tables."""
    render_id = place.add_render(place.add_file(age=DAY), "completed", ended=60)
    first, second = tmp_path / "first.zip", tmp_path / "second.zip"
    make_backup(first, database, storage, secret=None)
    restore_backup(first, other, other_storage, secret=None, scratch=tmp_path)
    with database.write() as session:
        for table in reversed(Table.metadata.sorted_tables):
            session.execute(table.delete())
    make_backup(second, other, other_storage, secret=None)
    restore_backup(second, database, storage, secret=None, scratch=tmp_path)
    with database.read() as session:
        assert session.get_one(Render, render_id).status is RenderStatus.COMPLETED
    assert rows_of(other, "users") == rows_of(database, "users")


def test_unfinished_renders_begin_again(
    database: Database,
    storage: Storage,
    make_ledger: Callable[..., WorkLedger],
    add_render: Callable[[], Render],
    prepare: Callable[..., ReadyUnits],
    other: Database,
    other_storage: Storage,
    tmp_path: Path,
) -> None:
    render = add_render()
    ledger = make_ledger()
    prepare(ledger, claimed(ledger), segments=2)
    ledger.segment_done(claimed(ledger), storage_key="renders/x/segments/000000-1.mkv")
    claimed(ledger)

    make_backup(tmp_path / "backup.zip", database, None, secret=None)
    restore_backup(tmp_path / "backup.zip", other, other_storage, secret=None, scratch=tmp_path)

    assert rows_of(other, "segments") == [] == rows_of(other, "workers")
    again = WorkLedger(database=other, worker="other", lease_seconds=30, max_attempts=3)
    assert claimed(again).render_id == render.id
    with other.read() as session:
        found = session.get_one(Render, render.id)
        assert found.status is RenderStatus.PENDING and found.worker == "other"
        assert found.attempt == 2 and found.failures == 0


def claimed(ledger: WorkLedger) -> Job:
    job = ledger.claim()
    assert job is not None
    return job


def test_tables_are_kept_or_said_to_be_transient() -> None:
    """A new table has to be thought about."""
    assert {table.name for table in kept_tables()} == {
        "engines",
        "users",
        "api_keys",
        "files",
        "renders",
        "segments",
        "idempotency_keys",
        "daily_usage",
        "webhook_endpoints",
        "webhook_deliveries",
        "webhook_attempts",
        "destinations",
        "measured_option_speeds",
        "measured_speeds",
    }
    assert set(Table.metadata.tables) >= TRANSIENT


def test_what_cannot_be_restored_is_refused_and_changes_nothing(
    place: AgedRows, storage: Storage, other: Database, other_storage: Storage, tmp_path: Path
) -> None:
    stored = input_key(place.add_file(age=DAY))
    backup = tmp_path / "backup.zip"
    make_backup(backup, place.database, storage, secret=None)

    def refused(path: Path, words: str, database: Database = other) -> None:
        with pytest.raises(ConfigurationError, match=words):
            restore_backup(path, database, other_storage, secret=None, scratch=tmp_path)

    refused(backup, "not empty", place.database)
    whole = backup.read_bytes()
    for name, data in {"cut.zip": whole[: len(whole) // 2], "text.zip": b"no zip at all"}.items():
        (tmp_path / name).write_bytes(data)
        refused(tmp_path / name, "its end is missing")
    flipped = bytearray(whole)
    flipped[whole.index(b"rows/users.jsonl") + 45] ^= 0xFF
    (tmp_path / "flipped.zip").write_bytes(flipped)
    refused(tmp_path / "flipped.zip", "not a complete backup")
    flipped = bytearray(whole)
    with zipfile.ZipFile(backup) as archive:
        member = archive.getinfo(f"storage/{stored}")
        flipped[whole.index(archive.read(member), member.header_offset + 30 + len(member.filename) + 20)] ^= (
            0xFF
        )
    (tmp_path / "object.zip").write_bytes(flipped)
    refused(tmp_path / "object.zip", f"{stored} is damaged")
    with zipfile.ZipFile(backup) as source, zipfile.ZipFile(tmp_path / "fewer.zip", "w") as archive:
        for member in source.infolist():
            lost = member.filename == "rows/users.jsonl"
            archive.writestr(member, b"" if lost else source.read(member))
    refused(tmp_path / "fewer.zip", "rows of users are missing")
    assert migrations.revision(other) is None and list(other_storage.list("")) == []
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("manifest.json", '{"format": 1, "version": "9", "revision": "9999", "rows": {}}')
    refused(tmp_path / "other.zip", "version 9 at migration 9999")
    with pytest.raises(ConfigurationError, match="already"):
        make_backup(backup, place.database, storage, secret=None)
    restore_backup(backup, other, other_storage, secret=None, scratch=tmp_path)
    assert migrations.position(other).is_usable and new_id()


@pytest.mark.slow
def test_a_drill(tmp_path: Path) -> None:
    """A server that serves is backed up, and stands up again elsewhere: same key, same video, and work goes on."""

    def regen(*arguments: str, data_dir: Path) -> str:
        done = CliRunner().invoke(application, [*arguments, "--data-dir", str(data_dir)])
        assert done.exit_code == 0, done.output
        return done.output

    settings = {"stand_in_network": "true", "segment_seconds": "0.5"}
    backup = tmp_path / "backup.zip"
    with running_server(tmp_path / "first", **settings) as first:
        completed = first.wait(first.submit(CLIP)["id"])
        video = first.download(completed["outputFileURL"], tmp_path / "before.mp4").read_bytes()
        second = first.submit(CLIP)
        assert "2 renders" in regen("backup", str(backup), data_dir=tmp_path / "first")
        key = {"Authorization": first.client.headers["Authorization"]}
    assert "2 renders" in regen("restore", str(backup), data_dir=tmp_path / "second")
    with running_server(tmp_path / "second", **settings) as again:
        again.client.headers.update(key)
        found = again.get(completed["id"])
        assert httpx.get(found["outputFileURL"]).content == video
        assert again.wait(second["id"])["status"] == "completed"
