"""The mock's database: created from the tables, filled with one user, and emptied on request."""

import socket
import sqlite3
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from sqlalchemy import delete, event, text
from sqlalchemy.orm import Session

import migrations
from app.accounts.scopes import DEFAULT_SCOPES, Scope
from app.accounts.tables import ApiKey, User
from app.mock.claims import WORKER_NAME
from app.mock.options import ADMIN_KEY, KEY, USER_NAME
from app.platform import clock
from app.platform.database import Database, database_now
from app.platform.metrics import server_version
from app.platform.secrets import Secrets, api_key_digest, new_id
from app.platform.work_kinds import WorkQueue
from app.tables import Table
from app.work.tables import MeasuredSpeed, WorkerProcess
from models.catalog import ENGINES

DEVICE = "Mock"
# Input pixels per second, about those of a data-centre GPU.
SPEEDS = {"regen-4x-lite": 20e6, "regen-4x": 1e6, "regen-4x-anime": 3e6}
MEASURED_SECONDS = 600.0


def make_tables(database: Database) -> None:
    """Brings the database to the newest migration. An empty one gets all tables at once, which is much faster."""
    with database.connect(to_write=True) as connection, connection.begin():
        found = connection.execute(text("SELECT count(*) FROM sqlite_master")).scalar_one()
        if not found:
            Table.metadata.create_all(connection)
            connection.execute(
                text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
            )
            connection.execute(
                text("INSERT INTO alembic_version VALUES (:head)"), {"head": newest_migration()}
            )
            return
    # Deferred: loading Alembic takes a while.
    from app.migrations import upgrade

    upgrade(database)


def follow_clock(database: Database, now: Callable[[], datetime]) -> None:
    """From now on the database's own clock, which leases and retries use, is that of `now`."""
    plain, lock = sqlite3.connect(":memory:", check_same_thread=False), threading.Lock()

    def strftime(form: str, moment: str, *modifiers: str) -> str | None:
        if moment == "now":
            moment = f"{now():%Y-%m-%d %H:%M:%S.%f}"[:-3]
        marks = ", ?" * len(modifiers)
        with lock:
            row = plain.execute(f"SELECT strftime(?, ?{marks})", (form, moment, *modifiers)).fetchone()
        formatted: str | None = row[0]
        return formatted

    @event.listens_for(database.engine, "connect")
    def replace_clock(connection: sqlite3.Connection, _record: object) -> None:
        connection.create_function("strftime", -1, strftime)

    # Connections made before.
    database.engine.dispose()


def count_start(root: Path) -> int:
    """Returns how many mocks were started on this directory before."""
    path = root / "starts"
    before = int(path.read_text()) if path.exists() else 0
    path.write_text(str(before + 1))
    return before


def newest_migration() -> str:
    scripts = Path(str(migrations.__file__)).parent.glob("versions/[0-9]*.py")
    return max(path.stem.partition("_")[0] for path in scripts)


def fill(database: Database, keys: Secrets) -> None:
    """Adds the user with the documented keys, and one worker with measured speeds, to an empty database."""
    with database.write() as session:
        if session.get(WorkerProcess, WORKER_NAME) is None:
            _add_worker(session)
        known = {digest for (digest,) in session.execute(text("SELECT digest FROM api_keys"))}
        if api_key_digest(KEY, keys=keys) in known:
            return
        user = User(id=new_id(), name=USER_NAME, created_at=clock.now())
        session.add(user)
        session.flush()
        for key, name, scopes in (
            (KEY, "mock", DEFAULT_SCOPES),
            (ADMIN_KEY, "mock admin", frozenset(Scope)),
        ):
            session.add(
                ApiKey(
                    id=new_id(),
                    user_id=user.id,
                    name=name,
                    hint=key[:10],
                    digest=api_key_digest(key, keys=keys),
                    created_at=clock.now(),
                    scopes=[scope.value for scope in Scope if scope in scopes],
                )
            )


def empty(database: Database) -> None:
    """Removes every row."""
    with database.write() as session:
        session.execute(text("PRAGMA defer_foreign_keys = ON"))
        for table in reversed(Table.metadata.sorted_tables):
            session.execute(delete(table))


def _add_worker(session: Session) -> None:
    session.add(
        WorkerProcess(
            name=WORKER_NAME,
            host=socket.gethostname(),
            pid=0,
            device="mock",
            device_name=DEVICE,
            queues=",".join(WorkQueue),
            engines=sorted(ENGINES),
            measures_vmaf=True,
            version=server_version(),
            started_at=database_now(),
            heartbeat_at=database_now(),
        )
    )
    for engine, speed in SPEEDS.items():
        session.add(
            MeasuredSpeed(
                worker_device=DEVICE,
                engine=engine,
                pixels_per_second=speed,
                seconds=MEASURED_SECONDS,
                measured_at=database_now(),
            )
        )
