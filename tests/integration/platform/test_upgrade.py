"""A database that the first version filled, brought to today's: nothing is lost, and work goes on."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import MetaData, insert, inspect, select
from sqlalchemy.orm import Mapper

from app import migrations
from app.accounts import service as account_service
from app.accounts.tables import ApiKey, User
from app.files.tables import File
from app.platform.database import Database
from app.platform.secrets import Secrets
from app.platform.settings import Settings
from app.platform.tables import Table
from app.platform.work_kinds import WorkKind
from app.renders import queries as render_queries
from app.renders.progress import view_render
from app.renders.statuses import RenderStatus, SegmentStatus
from app.renders.tables import Render, Segment
from app.work.ledger import WorkLedger

FIRST = "0001"
SECRET = SecretStr("s" * 32)
OLD_KEY = "regen_key-of-an-old-version"
# Worked out by that version, with that secret.
OLD_DIGEST = "bab355a870581b3fe4665496b457e81ca4d07b0142ee7628f3584d679a2e3aae"

T = datetime(2026, 11, 1, 9, 30, 0, 123456, tzinfo=UTC)
LEASE_OVER = T + timedelta(seconds=30)


def render(name: str, status: str, minute: int, **values: object) -> dict[str, object]:
    return {
        "id": name,
        "user_id": "ann",
        "file_id": "clip",
        "engine": "regen-4x",
        "target_fps": None,
        "status": status,
        "created_at": T + timedelta(minutes=minute),
        "completed_at": None,
        "error": None,
        "warnings": [],
        "cost": 0.1 + 0.2,
        "input_width": 1920,
        "input_height": 1080,
        "input_frame_rate": "30000/1001",
        "input_duration_seconds": "12345678901/90000",
        "input_frames": 4_111_000_000,
        "output_width": 7680,
        "output_height": 4320,
        "output_frame_rate": "30000/1001",
        "output_duration_seconds": "12345678901/90000",
        "output_frames": 4_111_000_000,
        "plan": None,
        "output_key": None,
        "thumbnail_key": None,
        "attempt": 0,
        "failures": 0,
        "worker": None,
        "work_lease_expires_at": None,
        "retry_at": None,
    } | values


def segment(render_id: str, position: int, status: str, **values: object) -> dict[str, object]:
    return {
        "id": f"{render_id}{position}",
        "render_id": render_id,
        "position": position,
        "status": status,
        "created_at": T,
        "plan": '{"first": 0}',
        "frames": 100,
        "frames_done": 0,
        "storage_key": None,
        "attempt": 0,
        "failures": 0,
        "worker": None,
        "lease_expires_at": None,
        "retry_at": None,
    } | values


def done(render_id: str, position: int) -> dict[str, object]:
    key = f"renders/{render_id}/segments/{position}-1.mp4"
    return segment(render_id, position, "done", frames_done=100, storage_key=key, attempt=1, worker="w-1")


OLD_ROWS: dict[str, list[dict[str, object]]] = {
    "users": [
        {"id": "ann", "name": "Ann Ünïcode 🎬", "created_at": T},
        {"id": "bob", "name": "bob", "created_at": T},
    ],
    "api_keys": [
        {
            "id": "key1",
            "user_id": "ann",
            "name": "first key",
            "hint": "regen_key-",
            "digest": OLD_DIGEST,
            "created_at": T,
            "revoked_at": None,
        },
        {
            "id": "key2",
            "user_id": "bob",
            "name": "old key",
            "hint": "regen_abcd",
            "digest": "0" * 64,
            "created_at": T,
            "revoked_at": T,
        },
    ],
    "files": [
        {
            "id": "clip",
            "user_id": "ann",
            "name": "Ferien – Übersicht.mp4",
            "content_type": "video/mp4",
            "size_bytes": 6_000_000_000,
            "sha256": "ab" * 32,
            "storage_key": "files/clip/input",
            "width": 1920,
            "height": 1080,
            "frame_rate": "30000/1001",
            "duration_seconds": "12345678901/90000",
            "frames": 4_111_000_000,
            "created_at": T,
        },
    ],
    "renders": [
        render("queued", "queued", 5, target_fps="60000/1001"),
        render("pending", "pending", 4, attempt=1, worker="w-1", work_lease_expires_at=LEASE_OVER),
        render("processing", "processing", 3, plan='{"segments": 4}', attempt=1, warnings=["Cut off: 1 s."]),
        render("finishing", "processing", 2, plan='{"segments": 1}', attempt=1, failures=1, retry_at=T),
        render(
            "completed",
            "completed",
            1,
            plan="{}",
            attempt=2,
            completed_at=T + timedelta(hours=1),
            warnings=["One", "Zwölf"],
            output_key="renders/completed/output-2.mp4",
            thumbnail_key="renders/completed/thumbnail-2.jpg",
        ),
        render("failed", "failed", 0, plan="{}", attempt=1, error="The video is damaged."),
    ],
    "segments": [
        done("processing", 0),
        segment("processing", 1, "running", attempt=2, worker="w-2", frames_done=40, lease_expires_at=LEASE_OVER),
        segment("processing", 2, "waiting", attempt=1, failures=1, retry_at=T),
        segment("processing", 3, "waiting"),
        done("finishing", 0),
        done("completed", 0),
        done("failed", 0),
        segment("failed", 1, "failed", attempt=3, failures=3, worker="w-3"),
    ],
}  # fmt: skip

MODELS: dict[str, type[Table]] = {
    "users": User, "api_keys": ApiKey, "files": File, "renders": Render, "segments": Segment
}  # fmt: skip
FRACTIONS = {
    "target_fps", "frame_rate", "duration_seconds", "input_frame_rate", "input_duration_seconds",
    "output_frame_rate", "output_duration_seconds",
}  # fmt: skip


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """At the first migration, with the rows of that version in it, written by the columns that it had."""
    database = Database(database_url)
    migrations.downgrade(database)
    upgrade_to(database, FIRST)
    write(database, OLD_ROWS)
    yield database
    database.close()


def upgrade_to(database: Database, revision: str) -> None:
    from alembic import command

    with database.connect(to_write=True) as connection, connection.begin():
        command.upgrade(migrations._config(connection), revision)


def write(database: Database, rows: dict[str, list[dict[str, Any]]]) -> None:
    tables = MetaData()
    tables.reflect(database.engine)
    with database.write() as session:
        for name, values in rows.items():
            table = tables.tables[name]
            assert set(values[0]) == {column.name for column in table.columns}
            session.execute(insert(table), values)


def as_read(name: str, row: dict[str, Any]) -> dict[str, Any]:
    """The row as today's code shows it."""
    statuses: dict[str, Callable[[str], object]] = {"renders": RenderStatus, "segments": SegmentStatus}
    return {
        column: Fraction(value)
        if column in FRACTIONS and value is not None
        else statuses[name](value)
        if column == "status"
        else value
        for column, value in row.items()
    }


def value_of(row: object, column: str) -> object:
    """The value of a column, whatever its attribute is called."""
    mapper: Mapper[Any] = inspect(type(row))
    return getattr(row, mapper.get_property_by_column(mapper.local_table.c[column]).key)


def test_every_value_is_there_after_the_upgrade(database: Database) -> None:
    migrations.upgrade(database)
    assert migrations.drift(database) == []
    with database.read() as session:
        for name, rows in OLD_ROWS.items():
            found = {row.id: row for row in session.scalars(select(MODELS[name]))}  # type: ignore[attr-defined]
            assert len(found) == len(rows)
            for row in rows:
                shown = {column: value_of(found[row["id"]], column) for column in row}
                assert shown == as_read(name, row)
        assert set(session.scalars(select(Render.status))) == set(RenderStatus)
        assert set(session.scalars(select(Segment.status))) == set(SegmentStatus)


def test_old_keys_and_old_renders_go_on_working(database: Database) -> None:
    migrations.upgrade(database)
    # Such a secret is no longer accepted as a setting.
    keys = Secrets.load(Settings().model_copy(update={"secret_key": SECRET}))
    with database.read() as session:
        user = account_service.get_user(
            session, user_id=account_service.authenticate(session, key=OLD_KEY, keys=keys).user_id
        )
        assert user.id == "ann"
        queued = render_queries.find_render(session, render_id="queued", user_id=user.id)
        processing = render_queries.find_render(session, render_id="processing", user_id=user.id)
        assert queued is not None and processing is not None
        assert view_render(session, queued).queue_position == 1
        assert view_render(session, processing).progress == 140 / 400


def test_work_goes_on_where_the_old_workers_left_it(database: Database) -> None:
    migrations.upgrade(database)
    ledger = WorkLedger(database=database, worker="new", lease_seconds=30, max_attempts=3)
    ledger.give_back_expired()
    claims = [ledger.claim() for _ in range(7)]
    assert [claim and (claim.kind, claim.segment_id or claim.render_id, claim.attempt) for claim in claims] == [
        (WorkKind.FINISH, "finishing", 2),
        (WorkKind.UPSCALE, "processing1", 3),
        (WorkKind.UPSCALE, "processing2", 2),
        (WorkKind.UPSCALE, "processing3", 1),
        (WorkKind.PREPARE, "pending", 2),
        (WorkKind.PREPARE, "queued", 1),
        None,
    ]  # fmt: skip


def test_the_way_back_keeps_what_the_first_version_knew(database: Database) -> None:
    before = contents(database)
    migrations.upgrade(database)
    migrations.downgrade(database, FIRST)
    assert contents(database) == before
    migrations.upgrade(database)
    assert migrations.drift(database) == []


def contents(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, as the driver gives them."""
    with database.read() as session:
        return {
            name: [
                tuple(row)
                for row in session.connection().exec_driver_sql(f"SELECT * FROM {name} ORDER BY id")
            ]
            for name in OLD_ROWS
        }
