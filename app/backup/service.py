"""Making a backup of a server that may be serving, and restoring one into an empty database.

A backup is a zip: `manifest.json`, a file of rows for each table, the secret of a server that made its own,
and the videos at their keys, with their content types as comments. Rows are read in one transaction, so they
are from one moment; their videos are read after it.
"""

import contextlib
import io
import json
import os
import secrets
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select

from app import migrations
from app.accounts.tables import User
from app.backup.rows import dump, kept_tables, load, parse
from app.files.tables import File
from app.platform.database import Database
from app.platform.errors import ConfigurationError, KeyNotFound
from app.platform.metrics import server_version
from app.platform.storage.contract import Storage
from app.platform.storage.keys import is_key
from app.renders.tables import Render

FORMAT = 1
MANIFEST = "manifest.json"
SECRET = "secret"  # noqa: S105  (the name of a file)
ROWS = "rows/{table}.jsonl"
OBJECTS = "storage/"
CHUNK = 1024**2

NOT_A_BACKUP = "{path} is not a complete backup: {why}. Nothing was changed."


@dataclass(frozen=True, kw_only=True)
class BackupReport:
    """The contents of a backup. `missing` are keys in rows without an object in the storage."""

    rows: Mapping[str, int]
    objects: int
    object_bytes: int
    missing: list[str]


def make_backup(
    path: Path, database: Database, storage: Storage | None, *, secret: Path | None
) -> BackupReport:
    """Write a backup to the new file `path`, readable by its owner alone; without `storage` it has no videos.

    `secret` is the file of the server's secret, None when a setting holds it. Raises StorageError, Unavailable, and
    ConfigurationError for a database that lacks migrations.
    """
    migrations.require_usable(database)
    if path.exists():
        raise ConfigurationError(f"There is already a file at {path}; it was not changed.")
    part = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            with zipfile.ZipFile(file, "w") as archive:
                report = _write(archive, database, storage, secret)
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)
    return report


def _write(
    archive: zipfile.ZipFile, database: Database, storage: Storage | None, secret: Path | None
) -> BackupReport:
    made_at = datetime.now(UTC)
    rows: dict[str, int] = {}
    with database.snapshot() as connection:
        for table in kept_tables():
            member = zipfile.ZipInfo(ROWS.format(table=table.name))
            member.compress_type = zipfile.ZIP_DEFLATED
            rows[table.name] = 0
            with archive.open(member, "w", force_zip64=True) as raw, io.TextIOWrapper(raw, "utf-8") as text:
                for line in dump(connection, table):
                    text.write(line)
                    rows[table.name] += 1
        inputs = select(File.storage_key).where(File.erased_at.is_(None))
        keys = list(connection.scalars(inputs)) if storage is not None else []
        results = select(Render.output_key, Render.thumbnail_key, Render.sound_key).where(
            Render.output_key.is_not(None)
        )
        for stored in connection.execute(results) if storage is not None else ():
            keys += [key for key in stored if key is not None]
        revision = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one()
    missing: list[str] = []
    written = 0
    for key in keys:
        assert storage is not None
        try:
            written += _write_object(archive, storage, key)
        except KeyNotFound:
            missing.append(key)
    if secret is not None and secret.is_file():
        archive.writestr(SECRET, secret.read_bytes())
    manifest = {
        "format": FORMAT,
        "made_at": made_at.isoformat(),
        "version": server_version(),
        "revision": revision,
        "rows": rows,
        "has_objects": storage is not None,
    }
    archive.writestr(MANIFEST, json.dumps(manifest, indent=1))
    return BackupReport(rows=rows, objects=len(keys) - len(missing), object_bytes=written, missing=missing)


def _write_object(archive: zipfile.ZipFile, storage: Storage, key: str) -> int:
    stored = storage.stat(key)
    chunks = storage.read(key)
    member = zipfile.ZipInfo(OBJECTS + key)
    member.comment = stored.content_type.encode("ascii", "replace")
    with archive.open(member, "w", force_zip64=True) as file:
        return sum(file.write(chunk) for chunk in chunks)


def restore_backup(
    path: Path, database: Database, storage: Storage, *, secret: Path | None, scratch: Path
) -> BackupReport:
    """Fill an empty database, and the storage when the backup has videos. `scratch` is a directory on the same disk.

    The whole backup is read and checked before anything is written. The rows come last, in one transaction: a
    restore that fails or is killed before leaves an empty database, and may be repeated. Raises
    ConfigurationError if the database is not empty, if the file is incomplete or of another version, or if
    there is another secret; StorageError; Unavailable.
    """
    with _open(path) as archive:
        manifest = _manifest(archive, path)
        if manifest["revision"] != (current := migrations.newest_revision()):
            raise ConfigurationError(
                f"The backup was made by version {manifest['version']} at migration {manifest['revision']}; this "
                f"version's databases are at migration {current}. Restore it with that version, then upgrade."
            )
        _check(archive, manifest, path)
        migrations.upgrade(database)
        with database.read() as session:
            if session.scalar(select(User.id).limit(1)) is not None:
                raise ConfigurationError(
                    "The database is not empty. A backup can be restored only into an empty one."
                )
        if secret is not None:
            _restore_secret(archive, secret)
        objects, written = _restore_objects(archive, storage, scratch)
        rows: dict[str, int] = {}
        with database.write() as session:
            for table in kept_tables():
                with archive.open(ROWS.format(table=table.name)) as raw:
                    rows[table.name] = load(session.connection(), table, io.TextIOWrapper(raw, "utf-8"))
    return BackupReport(rows=rows, objects=objects, object_bytes=written, missing=[])


def _restore_secret(archive: zipfile.ZipFile, secret: Path) -> None:
    if SECRET not in archive.namelist():
        return
    kept = archive.read(SECRET)
    if secret.exists():
        if secret.read_bytes() != kept:
            raise ConfigurationError(
                f"{secret} is not the backup's secret. Move it away, or every API key of the backup would be refused."
            )
        return
    secret.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(kept)


def _restore_objects(archive: zipfile.ZipFile, storage: Storage, scratch: Path) -> tuple[int, int]:
    members = _objects(archive)
    with tempfile.TemporaryDirectory(prefix=".restore-", dir=scratch) as directory:
        for number, member in enumerate(members):
            file = Path(directory, str(number))
            with archive.open(member) as source, file.open("wb") as copy:
                shutil.copyfileobj(source, copy, CHUNK)
            key = member.filename.removeprefix(OBJECTS)
            storage.put_file(key, file, content_type=member.comment.decode("ascii"))
            file.unlink(missing_ok=True)
    return len(members), sum(member.file_size for member in members)


def _objects(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    return [member for member in archive.infolist() if member.filename.startswith(OBJECTS)]


def _check(archive: zipfile.ZipFile, manifest: Mapping[str, Any], path: Path) -> None:
    """Raises ConfigurationError unless every member is present and intact: its checksum, its key, its number
    of rows."""
    for table in kept_tables():
        with _reads(path, table.name), archive.open(ROWS.format(table=table.name)) as raw:
            if sum(1 for line in raw if parse(table, line.decode())) != manifest["rows"].get(table.name):
                raise ConfigurationError(
                    NOT_A_BACKUP.format(path=path, why=f"rows of {table.name} are missing")
                )
    for member in _objects(archive):
        key = member.filename.removeprefix(OBJECTS)
        if not is_key(key):
            raise ConfigurationError(NOT_A_BACKUP.format(path=path, why=f"{key!r} is no key"))
        with _reads(path, key), archive.open(member) as source:
            while source.read(CHUNK):
                pass


def _manifest(archive: zipfile.ZipFile, path: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads(archive.read(MANIFEST))
        known = manifest["format"] == FORMAT and isinstance(manifest["rows"], dict) and manifest["revision"]
    except (KeyError, ValueError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise ConfigurationError(
            NOT_A_BACKUP.format(path=path, why="it has no manifest"), detail=repr(error)
        ) from error
    if not known:
        raise ConfigurationError(NOT_A_BACKUP.format(path=path, why="its format is of another version"))
    return manifest


@contextlib.contextmanager
def _open(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise ConfigurationError(
            NOT_A_BACKUP.format(path=path, why="its end is missing"), detail=str(error)
        ) from error
    with archive:
        yield archive


@contextlib.contextmanager
def _reads(path: Path, name: str) -> Iterator[None]:
    try:
        yield
    except (
        zipfile.BadZipFile,
        zlib.error,
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
        EOFError,
    ) as error:
        raise ConfigurationError(
            NOT_A_BACKUP.format(path=path, why=f"{name} is damaged"), detail=repr(error)
        ) from error
