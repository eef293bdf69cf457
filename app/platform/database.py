"""The database: its engine, its sessions, its clock, and its failures as typed errors.

SQLite and PostgreSQL stand behind one interface. On SQLite every writing session begins with BEGIN IMMEDIATE: it waits
for the write lock at the start and cannot fail half-way through for want of it. On PostgreSQL sessions are READ
COMMITTED: a row lock protects what must not change between two statements.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from sqlalchemy import (
    URL,
    BindParameter,
    CursorResult,
    DateTime,
    Engine,
    Executable,
    Float,
    Row,
    Select,
    String,
    create_engine,
    event,
    literal,
    make_url,
    select,
    text,
)
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator

from app.platform.database_errors import client_errors, location, operator_errors
from app.platform.errors import ConfigurationError
from app.platform.settings import Settings

BUSY_TIMEOUT_SECONDS = 30

# No statement of the server takes long. An abandoned transaction must not hold row locks for as long as a lease:
# heartbeats wait for them.
STATEMENT_TIMEOUT_SECONDS = 15
IDLE_TRANSACTION_TIMEOUT_SECONDS = 10

# A connection attempt times out after 5 seconds. A dead connection is detected after 15, whether it was idle
# (keepalives) or waited for an acknowledgement (tcp_user_timeout).
POSTGRESQL_OPTIONS: dict[str, Any] = {
    "application_name": "regen",
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 6,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
    "options": f"-c statement_timeout={STATEMENT_TIMEOUT_SECONDS}s"
    f" -c idle_in_transaction_session_timeout={IDLE_TRANSACTION_TIMEOUT_SECONDS}s",
    # Server-side prepared statements would not survive a connection pooler, or a migration under way.
    "prepare_threshold": None,
}

NOT_A_DATABASE_URL = (
    "REGEN_DATABASE_URL must look like postgresql://user@host:5432/name. Characters such as @ and / in a password are "
    "written as %40 and %2F there, or the password goes into REGEN_DATABASE_PASSWORD as it is."
)

WRONG_ENCODING = (
    "The database {location} has the encoding {encoding}, in which names and titles of other scripts cannot be kept. "
    "Make another with UTF-8 and set REGEN_DATABASE_URL to it: "
    "CREATE DATABASE regen ENCODING 'UTF8' TEMPLATE template0"
)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime in UTC, also on a database that stores no time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("the database accepts no naive datetime")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class database_now(FunctionElement[datetime]):  # noqa: N801  (SQL functions are written in lower case)
    """The database's own clock plus an offset in seconds, because workers' clocks may differ and leases must not."""

    type = UtcDateTime()
    # The offset is a parameter, so that a statement is compiled once and not for each offset.
    inherit_cache = True
    name = "database_now"

    def __init__(self, *, plus_seconds: float | BindParameter[float] = 0.0) -> None:
        if isinstance(plus_seconds, BindParameter):
            super().__init__(plus_seconds)
        else:
            super().__init__(*([literal(float(plus_seconds), Float)] if plus_seconds else []))


@compiles(database_now, "sqlite")
def _sqlite_now(element: database_now, compiler: SQLCompiler, **options: Any) -> str:
    offset = "".join(
        f", printf('%+.3f seconds', {compiler.process(seconds, **options)})" for seconds in element.clauses
    )
    # Padded to the six decimals that SQLAlchemy stores, so that text compares as time does.
    return f"(strftime('%Y-%m-%d %H:%M:%f', 'now'{offset}) || '000')"


@compiles(database_now, "postgresql")
def _postgresql_now(element: database_now, compiler: SQLCompiler, **options: Any) -> str:
    offset = "".join(
        f" + make_interval(secs => {compiler.process(seconds, **options)})" for seconds in element.clauses
    )
    # Not now(), which is the transaction's start: the transaction may have waited for a lock since.
    return f"(statement_timestamp(){offset})"


class commits_lazily(FunctionElement[str]):  # noqa: N801  (SQL functions are written in lower case)
    """As a column of RETURNING: the commit does not wait for PostgreSQL's disk.

    For changes that may be lost when the database crashes.
    """

    type = String()
    inherit_cache = True
    name = "commits_lazily"


@compiles(commits_lazily, "sqlite")
def _sqlite_commits_lazily(_element: commits_lazily, _compiler: SQLCompiler, **_: Any) -> str:
    return "NULL"


@compiles(commits_lazily, "postgresql")
def _postgresql_commits_lazily(_element: commits_lazily, _compiler: SQLCompiler, **_: Any) -> str:
    return "set_config('synchronous_commit', 'off', true)"


def read_clock(session: Session) -> datetime:
    """The database's own clock, for the times of rows: machines' clocks differ, and no result is older than its job."""
    moment: datetime = session.execute(select(database_now())).scalar_one()
    return moment


# Statements that select columns are executed on a connection, which takes a third of a session's time for them.
ColumnReader = Session | Connection


def fetch_rows(
    reader: ColumnReader, statement: Select[*tuple[Any, ...]], parameters: Mapping[str, Any]
) -> Sequence[Row[*tuple[Any, ...]]]:
    """The rows of a statement that selects columns."""
    if isinstance(reader, Session):
        reader.flush()
        reader = reader.connection()
    return reader.execute(statement, parameters).all()


def count_changed(session: Session, statement: Executable) -> int:
    """Execute an UPDATE or DELETE, and return how many rows it changed. Objects in the session stay as they are."""
    result = session.execute(statement.execution_options(synchronize_session=False))
    return cast(CursorResult[Any], result).rowcount


@dataclass(frozen=True, kw_only=True)
class PoolLimits:
    """The connection pool of one process on PostgreSQL: `size` kept open, `overflow` more, and the wait for a free one.

    The default keeps all of them open: opening one takes longer than most requests, and an overflow connection is
    opened anew each time.
    """

    size: int = 20
    overflow: int = 0
    timeout_seconds: float = 10.0

    @classmethod
    def from_settings(cls, settings: Settings) -> "PoolLimits":
        return cls(
            size=settings.database_pool_size,
            overflow=settings.database_pool_overflow,
            timeout_seconds=settings.database_pool_timeout_seconds,
        )


class Database:
    """Sessions on one database: `read()` and `write()` for the application, `connect()` for migrations and checks."""

    def __init__(self, url: str, *, pool: PoolLimits | None = None, read_only: bool = False) -> None:
        """Does not connect yet. Raises ConfigurationError for a URL of no supported database.

        With `read_only` an SQLite file, which must exist, is neither changed nor given files beside it.
        """
        self.engine = make_engine(url, pool or PoolLimits(), read_only=read_only)
        self._reader = self.engine.execution_options(postgresql_readonly=True)
        self._writer = self.engine.execution_options(regen_begin="BEGIN IMMEDIATE")

    @classmethod
    def from_settings(cls, settings: Settings, *, read_only: bool = False) -> "Database":
        """The configured database."""
        return cls(
            settings.resolved_database_url, pool=PoolLimits.from_settings(settings), read_only=read_only
        )

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A read-only session. Raises Unavailable when the database cannot be reached."""
        with client_errors(), Session(self._reader, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def read_columns(self) -> Iterator[Connection]:
        """A read-only connection for `fetch_rows`. Raises Unavailable when the database cannot be reached."""
        with client_errors(), self._reader.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session in one transaction: committed on a clean exit, rolled back on an exception.

        Raises Unavailable when the database cannot be reached, stays locked, or aborts the transaction.
        """
        with (
            client_errors(),
            Session(self._writer, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    @contextmanager
    def connect(self, *, to_write: bool = False) -> Iterator[Connection]:
        """A connection outside of any session, for migrations and checks.

        Raises Unavailable or ConfigurationError with a sentence that quotes the database's answer.
        """
        engine = self._writer if to_write else self._reader
        with operator_errors(self.engine.url), engine.connect() as connection:
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A connection in one read-only transaction that sees one moment, however long it lasts. Raises Unavailable."""
        level = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ"}
        with client_errors(), self._reader.execution_options(**level).connect() as connection:
            if not self.is_sqlite:
                connection.execute(text("SET LOCAL statement_timeout = 0"))
                connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = '10min'"))
            yield connection

    def check(self) -> None:
        """Raises Unavailable when the database does not answer, ConfigurationError when it refuses the connection."""
        with self.connect() as connection:
            connection.execute(text("SELECT 1"))

    def close(self) -> None:
        self.engine.dispose()


def make_engine(url: str, pool: PoolLimits, *, read_only: bool = False) -> Engine:
    """Does not connect yet. Raises ConfigurationError, which never shows the URL: it may contain a password."""
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite_engine(parsed, read_only=read_only)
    return _postgresql_engine(parsed, pool)


def sqlite_file(url: URL) -> Path | None:
    """The path of a database that is a file, else None."""
    if url.get_backend_name() != "sqlite" or not url.database or url.database.startswith((":", "file:")):
        return None
    return Path(url.database)


def parse_url(url: str) -> URL:
    """Raises ConfigurationError for a URL that is neither SQLite's nor PostgreSQL's."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # Not "from": the original message may quote the URL.
        raise ConfigurationError(NOT_A_DATABASE_URL) from None
    known = parsed.drivername in ("sqlite", "postgresql", "postgresql+psycopg")
    if not known or "@" in (parsed.host or ""):
        raise ConfigurationError(NOT_A_DATABASE_URL)
    return parsed


def _postgresql_engine(url: URL, pool: PoolLimits) -> Engine:
    engine = create_engine(
        url,
        # The URL's own parameters win.
        connect_args={name: value for name, value in POSTGRESQL_OPTIONS.items() if name not in url.query},
        isolation_level="READ COMMITTED",
        pool_size=pool.size,
        max_overflow=pool.overflow,
        pool_timeout=pool.timeout_seconds,
        # After a restart of the server a request costs a new connection, not an error.
        pool_pre_ping=True,
        hide_parameters=True,
    )

    # Before SQLAlchemy's own first question, whose answer it cannot read in such a database.
    @event.listens_for(engine, "connect", insert=True)
    def require_utf8(connection: Any, _record: Any) -> None:
        encoding = connection.info.parameter_status("server_encoding")
        if encoding not in (None, "UTF8"):
            raise ConfigurationError(WRONG_ENCODING.format(location=location(url), encoding=encoding))

    return engine


def _sqlite_engine(url: URL, *, read_only: bool) -> Engine:
    file = sqlite_file(url)
    options: dict[str, Any] = {"connect_args": {"timeout": BUSY_TIMEOUT_SECONDS}, "hide_parameters": True}
    if read_only and file is not None:
        options["creator"] = lambda: _open_to_read(file)
    elif file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, **options)

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        # The driver must not open transactions by itself: the "begin" event below starts each one.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_SECONDS * 1000}")
        if not read_only:
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        statement = connection.get_execution_options().get("regen_begin")
        if statement is not None:
            connection.exec_driver_sql(statement)
        else:
            # A deferred transaction takes no lock and cannot fail, so it needs none of SQLAlchemy's handling of errors.
            connection.connection.cursor().execute("BEGIN")

    return engine


def _open_to_read(file: Path) -> sqlite3.Connection:
    # Without a log beside it no process has the file open. SQLite would make a log, and leave it behind.
    is_open = file.with_name(f"{file.name}-wal").exists()
    address = f"{file.absolute().as_uri()}?mode=ro{'' if is_open else '&immutable=1'}"
    return sqlite3.connect(address, uri=True, timeout=BUSY_TIMEOUT_SECONDS, check_same_thread=False)
