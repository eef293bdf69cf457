"""Checks of database, broker, storage and disk."""

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from app import migrations
from app.cli.database import missing_database
from app.cli.doctor.findings import Finding
from app.platform import queue
from app.platform.byte_sizes import GIB
from app.platform.database import Database
from app.platform.database_engine import parse_url
from app.platform.errors import ConfigurationError, RegenError
from app.platform.settings import Settings
from app.serving.broker import answers, find_program
from app.work.workers import list_workers

MIN_FREE_BYTES = 1 * GIB
RECOMMENDED_FREE_BYTES = 10 * GIB


def check_database(settings: Settings) -> Iterator[Finding]:
    """The database is reachable and has every migration; then, the workers in it. A missing SQLite file is not made."""
    subject = "database"
    try:
        shown = parse_url(settings.resolved_database_url).set(query={}).render_as_string(hide_password=True)
        if missing_database(settings) is not None:
            fix = "if this is the right directory: regen serve makes it; if not, give --data-dir"
            yield Finding.absent(subject, f"there is none at {shown} yet", fix=fix)
            return
        with closing(Database.from_settings(settings, read_only=True)) as database:
            if not migrations.position(database).is_usable:
                fix = "regen db upgrade, or start regen serve, which does it"
                yield Finding.missing(subject, f"{shown}: migrations are missing", fix=fix)
                return
            yield Finding.ok(subject, f"{shown}: reachable, every migration applied")
            yield _check_workers(database, lease_seconds=settings.lease_seconds)
    except (RegenError, SQLAlchemyError, ImportError, OSError) as error:
        own = f"let this user read {settings.root}, or restore the database from a backup"
        fix = (
            own
            if settings.database_url is None
            else "start it, or correct REGEN_DATABASE_URL and its password"
        )
        yield Finding.missing(subject, _first_line(error), fix=fix)


def _check_workers(database: Database, *, lease_seconds: float) -> Finding:
    with database.read() as session:
        found = list_workers(session)
    alive = [view for view in found if view.is_alive(lease_seconds=lease_seconds)]
    if not alive:
        fix = "regen serve starts one; on another machine, or beside --no-worker: regen worker"
        return Finding.absent("workers", "none is alive: renders wait", fix=fix)
    kinds = ", ".join(
        f"{count} on {device}" for device, count in Counter(one.device for one in alive).items()
    )
    return Finding.ok("workers", f"{len(alive)} alive ({kinds})")


def check_broker(settings: Settings) -> Finding:
    """The broker of REGEN_BROKER_URL answers; the embedded one answers or can be started."""
    subject = "broker"
    if settings.broker_url is None:
        if answers(settings.broker_socket):
            return Finding.ok(subject, "embedded, answers PING")
        try:
            program = find_program()
        except ConfigurationError as error:
            fix = "set REGEN_BROKER_URL to a Redis or Valkey server"
            return Finding.missing(subject, str(error), fix=fix)
        return Finding.ok(subject, f"embedded, starts with `regen serve` ({program})")
    try:
        queue.check_broker(queue.make_celery(settings))
    except RegenError as error:
        return Finding.missing(subject, _first_line(error), fix="start it, or correct REGEN_BROKER_URL")
    return Finding.ok(subject, "REGEN_BROKER_URL answers")


def check_storage(settings: Settings) -> Finding:
    """The directory is writable, or the bucket can be listed: writes nothing. A missing data directory is not
    made."""
    subject = "storage"
    if settings.storage == "s3":
        return _check_bucket(settings, subject)
    root = settings.root
    directory = _nearest_existing(settings.storage_dir)
    if not os.access(directory, os.W_OK | os.X_OK):
        fix = f"let this user write to {directory}, or choose another with --data-dir or REGEN_DATA_DIR"
        return Finding.missing(subject, f"{directory} cannot be written", fix=fix)
    if not root.exists():
        return Finding.ok(subject, f"{root}: made by the first `regen serve`")
    return Finding.ok(subject, f"{settings.storage}, {root}: writable")


def _check_bucket(settings: Settings, subject: str) -> Finding:
    # Importing boto3 is slow.
    from app.platform.storage.s3 import S3Storage
    from app.platform.storage.s3_connection import connect

    try:
        S3Storage(connect(settings)).check_listing()
    except RegenError as error:
        fix = "correct the REGEN_S3_... settings, then: regen storage check"
        return Finding.missing(subject, _first_line(error), fix=fix)
    return Finding.ok(
        subject, f"bucket {settings.s3_bucket}: can be listed; regen storage check also writes to it"
    )


def check_disk(settings: Settings) -> Finding:
    """The file system of the data directory has space for outputs."""
    subject, directory = "free disk space", _nearest_existing(settings.root)
    free_bytes = shutil.disk_usage(directory).free
    found = f"{free_bytes / GIB:.1f} GiB at {directory}"
    if free_bytes >= RECOMMENDED_FREE_BYTES:
        return Finding.ok(subject, found)
    report = Finding.missing if free_bytes < MIN_FREE_BYTES else Finding.absent
    fix = f"free space at {directory}: outputs are many times larger than inputs"
    return report(subject, found, fix=fix)


def _nearest_existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.parents) if parent.exists())


def _first_line(error: BaseException) -> str:
    detail = getattr(error, "detail", None)
    return f"{error} ({str(detail).splitlines()[0]})" if detail else str(error).splitlines()[0]
