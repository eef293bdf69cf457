"""Bringing a database to the newest migration, and asking where it stands.

While machines are upgraded one after another, processes of the version before go on using the database. So a
migration only adds, what it adds is nullable or has a default in the database, and what falls out of use is removed
a version later.

`python -m app.migrations check` fails when the tables and the migrations have drifted apart;
`python -m app.migrations revision MESSAGE` writes a new migration from the difference.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

import structlog
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

import migrations
from app.platform.database import Database
from app.platform.errors import ConfigurationError, Unavailable
from app.tables import Table

# A migration that waits for a table makes everybody after it wait as well, so it soon steps back and tries again.
# Together that is longer than any transaction of ours may last.
LOCK_TIMEOUT_SECONDS = 3.0
LOCK_ATTEMPTS = 10
LOCK_PAUSE_SECONDS = 1.0
ADVISORY_LOCK = 0x726567656E  # "regen"; migrating takes it, one process at a time

log = structlog.get_logger(__name__)


class Position(StrEnum):
    """Where a database stands, seen from this version's migrations.

    `empty` has none of them, `behind` lacks some, `head` has all, `ahead` has one of a later version.
    """

    EMPTY = "empty"
    BEHIND = "behind"
    HEAD = "head"
    AHEAD = "ahead"

    @property
    def is_usable(self) -> bool:
        """Whether this version can work on it: also on that of a later one."""
        return self in (Position.HEAD, Position.AHEAD)


def position(database: Database) -> Position:
    """Raises Unavailable or ConfigurationError when the database cannot be asked."""
    with database.connect() as connection:
        return _position(connection)


def revision(database: Database) -> str | None:
    """The newest migration that was applied, None when there is none."""
    with database.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def require_usable(database: Database) -> None:
    """Raises ConfigurationError when migrations are missing."""
    if not position(database).is_usable:
        raise ConfigurationError("The database lacks migrations. Apply them with: regen db upgrade")


def upgrade(database: Database) -> None:
    """Apply every migration that is missing. Does nothing at head, and nothing but warn when the database is ahead.

    Several processes may call it at once: one migrates, the others wait for it.
    """
    if _is_done(database):
        return
    for attempt in range(1, LOCK_ATTEMPTS + 1):
        try:
            with _migrating(database) as connection:
                if not _position(connection).is_usable:
                    command.upgrade(_config(connection), "head")
        except Unavailable as error:
            if attempt == LOCK_ATTEMPTS or not _is_lock_timeout(error):
                raise
            log.warning("migration_waits", attempt=attempt, detail=error.detail)
            time.sleep(LOCK_PAUSE_SECONDS)
        else:
            return


def downgrade(database: Database, revision: str = "base") -> None:
    """Take migrations back, and what was kept in what they added. For tests: an older version needs no downgrade."""
    with _migrating(database) as connection:
        command.downgrade(_config(connection), revision)


def drift(database: Database) -> list[str]:
    """The differences between the tables in code and the database, one line each."""
    with database.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return [str(difference) for difference in compare_metadata(context, Table.metadata)]


def _is_done(database: Database) -> bool:
    with database.connect() as connection:
        found = _position(connection)
        if found is Position.AHEAD:
            log.warning(
                "database_is_ahead",
                revision=MigrationContext.configure(connection).get_current_revision(),
                newest_known=_scripts().get_current_head(),
            )
        return found.is_usable


def _position(connection: Connection) -> Position:
    current = MigrationContext.configure(connection).get_current_revision()
    if current is None:
        return Position.EMPTY
    if current == _scripts().get_current_head():
        return Position.HEAD
    known = {script.revision for script in _scripts().walk_revisions()}
    return Position.BEHIND if current in known else Position.AHEAD


@contextmanager
def _migrating(database: Database) -> Iterator[Connection]:
    """A connection in one transaction, committed at the end, that nobody else migrates beside."""
    with database.connect(to_write=True) as connection:
        if database.is_sqlite:
            with _without_foreign_keys(connection), connection.begin():
                yield connection
                broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
                if broken:
                    raise ConfigurationError(
                        "The migrations would leave rows that refer to nothing. Nothing was changed.",
                        detail=f"orphans: {broken}",
                    )
            return
        with connection.begin():
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = '5min'"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
            connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_SECONDS}s'"))
            yield connection


@contextmanager
def _without_foreign_keys(connection: Connection) -> Iterator[None]:
    """SQLite changes some columns by making the table anew. Dropping the old one would delete what refers to it."""
    driver = connection.connection.driver_connection
    assert driver is not None
    # On the driver's connection: the switch has no effect inside of a transaction.
    driver.execute("PRAGMA foreign_keys = OFF")
    try:
        yield
    finally:
        driver.execute("PRAGMA foreign_keys = ON")


def _is_lock_timeout(error: Unavailable) -> bool:
    database_error = getattr(error.__cause__, "orig", None)
    return getattr(database_error, "sqlstate", None) == "55P03"


@lru_cache(maxsize=1)
def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(_directory()))


def _directory() -> Path:
    return Path(str(migrations.__file__)).parent


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_directory()).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m app.migrations")
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="fail when tables and migrations differ")
    check.add_argument(
        "--database-url",
        help="compare with this database: every migration is applied to it when it is empty, else nothing is changed. "
        "Without it, a SQLite file is made for the purpose.",
    )
    new = commands.add_parser("revision", help="write a migration from the difference")
    new.add_argument("message")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="regen-migrations-") as directory:
        given = getattr(options, "database_url", None)
        database = Database(given or f"sqlite:///{directory}/check.db")
        try:
            if position(database) is Position.EMPTY:
                upgrade(database)
            if options.command == "revision":
                _write_revision(database, options.message)
                return 0
            differences = drift(database)
        finally:
            database.close()
    for difference in differences:
        sys.stderr.write(f"{difference}\n")
    return 1 if differences else 0


def _write_revision(database: Database, message: str) -> None:
    number = sum(1 for _script in _scripts().walk_revisions()) + 1
    with database.connect(to_write=True) as connection, connection.begin():
        command.revision(_config(connection), message=message, autogenerate=True, rev_id=f"{number:04d}")


if __name__ == "__main__":
    sys.exit(main())
