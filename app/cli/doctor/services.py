"""Checks of what the server connects to and writes to: database, broker, storage, disk."""

import os
import shutil
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from app import migrations
from app.cli.doctor.findings import Finding
from app.platform import queue
from app.platform.database import Database, parse_url
from app.platform.errors import ConfigurationError, RegenError
from app.platform.secrets import Secrets
from app.platform.settings import Settings
from app.platform.storage import open_storage
from app.platform.units import GIB
from app.serving.broker import answers, find_program

MIN_FREE_BYTES = 1 * GIB
RECOMMENDED_FREE_BYTES = 10 * GIB


def check_database(settings: Settings) -> Finding:
    """The database is reachable and has every migration. A missing SQLite file is not created."""
    subject = "database"
    try:
        url = parse_url(settings.resolved_database_url)
        shown = url.set(query={}).render_as_string(hide_password=True)
        if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).exists():
            return Finding.ok(subject, f"{shown}: made by the first `regen serve`")
        database = Database.from_settings(settings)
        try:
            is_usable = migrations.position(database).is_usable
        finally:
            database.close()
    except (RegenError, SQLAlchemyError, ImportError, OSError) as error:
        return Finding.missing(subject, _first_line(error), fix="check REGEN_DATABASE_URL")
    if not is_usable:
        return Finding.missing(subject, f"{shown}: migrations are missing", fix="regen db upgrade")
    return Finding.ok(subject, f"{shown}: reachable, every migration applied")


def check_broker(settings: Settings) -> Finding:
    """The broker of REGEN_BROKER_URL answers; the embedded one answers or can be started."""
    subject = "broker"
    if settings.broker_url is None:
        if answers(settings.broker_socket):
            return Finding.ok(subject, "embedded, answers PING")
        try:
            program = find_program()
        except ConfigurationError as error:
            return Finding.missing(subject, str(error), fix="set REGEN_BROKER_URL")
        return Finding.ok(subject, f"embedded, starts with `regen serve` ({program})")
    try:
        queue.check_broker(queue.make_celery(settings))
    except RegenError as error:
        return Finding.missing(subject, _first_line(error), fix="start it, or correct REGEN_BROKER_URL")
    return Finding.ok(subject, "REGEN_BROKER_URL answers")


def check_storage(settings: Settings) -> Finding:
    """The storage can be written. A missing data directory is not created."""
    subject = "storage"
    if settings.storage == "s3":
        return _check_bucket(settings, subject)
    fix = "let this user write there, or choose another with --data-dir or REGEN_DATA_DIR"
    root = settings.root
    if not root.exists():
        parent = _nearest_existing(root)
        if os.access(parent, os.W_OK | os.X_OK):
            return Finding.ok(subject, f"{root}: made by the first `regen serve`")
        return Finding.missing(subject, f"{root} cannot be made in {parent}", fix=fix)
    try:
        open_storage(settings, Secrets.load(settings)).check()
    except (RegenError, OSError) as error:
        return Finding.missing(subject, _first_line(error), fix=fix)
    return Finding.ok(subject, f"{settings.storage}, {root}: writable")


def _check_bucket(settings: Settings, subject: str) -> Finding:
    from app.platform.storage.s3 import S3Storage
    from app.platform.storage.s3_connection import connect

    try:
        connection = connect(settings)
        S3Storage(connection).check()
    except RegenError as error:
        fix = "correct the REGEN_S3_... settings, then: regen storage check"
        return Finding.missing(subject, _first_line(error), fix=fix)
    return Finding.ok(subject, f"bucket {connection.bucket} at {connection.address}: writable")


def check_disk(settings: Settings) -> Finding:
    """The file system of the data directory has room for outputs."""
    subject, directory = "free disk space", _nearest_existing(settings.root)
    free_bytes = shutil.disk_usage(directory).free
    found = f"{free_bytes / GIB:.1f} GiB at {directory}"
    if free_bytes >= RECOMMENDED_FREE_BYTES:
        return Finding.ok(subject, found)
    report = Finding.missing if free_bytes < MIN_FREE_BYTES else Finding.absent
    return report(subject, found, fix="make room: outputs are many times larger than inputs")


def _nearest_existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.parents) if parent.exists())


def _first_line(error: BaseException) -> str:
    detail = getattr(error, "detail", None)
    return f"{error} ({str(detail).splitlines()[0]})" if detail else str(error).splitlines()[0]
