"""Engines for PostgreSQL and SQLite: how connections are opened, pooled, and set up, and how their errors are told."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Literal

from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.engine import Connection, ExceptionContext
from sqlalchemy.exc import ArgumentError, DBAPIError, InvalidatePoolError, OperationalError
from sqlalchemy.exc import TimeoutError as NoFreeConnection
from sqlalchemy.pool import ConnectionPoolEntry

from app.platform.errors import ConfigurationError, DatabaseUnavailable
from app.platform.settings import Settings

# SQLite's messages about a permanent fault of the file.
NO_SQLITE_DATABASE = frozenset({"file is not a database", "database disk image is malformed"})

UNREACHABLE = "The database cannot be reached just now."

# Refusals that last until an operator changes the settings or the server. libpq gives no error code for a failed
# connection attempt, only text, which is English unless the server is set to another language.
REFUSALS = (
    "password authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "does not exist",
    "is not permitted to log in",
    "permission denied",
    "certificate",
    "does not support SSL",
    "invalid connection option",
)


@contextmanager
def client_errors() -> Iterator[None]:
    """Raises DatabaseUnavailable for a transient failure; every other error passes unchanged.

    Transient: the server is unavailable, restarts, has no free connection or closed one, or it aborted the
    transaction because of a deadlock, a time limit or an administrator.
    """
    try:
        yield
    except (DBAPIError, NoFreeConnection) as error:
        if not _is_transient(error):
            raise
        raise DatabaseUnavailable(UNREACHABLE, detail=str(error)) from error


@contextmanager
def operator_errors(url: URL) -> Iterator[None]:
    """As `client_errors`, with sentences for an operator: the database's address and answer.

    Raises ConfigurationError for a refusal that lasts until the settings or the server change.
    """
    try:
        yield
    except (DBAPIError, NoFreeConnection) as error:
        if isinstance(error, DBAPIError) and str(error.orig) in NO_SQLITE_DATABASE:
            raise ConfigurationError(
                f"{location(url)} is not an SQLite database, or is damaged. Restore it from a backup, or choose "
                "another with --data-dir or REGEN_DATA_DIR.",
                detail=str(error),
            ) from error
        is_connecting = isinstance(error, DBAPIError) and error.statement is None
        if not (is_connecting or _is_transient(error)):
            raise
        answer = _driver_message(error)
        if any(refusal in answer for refusal in REFUSALS):
            raise ConfigurationError(
                f"The database {location(url)} refuses access: {answer}. Check REGEN_DATABASE_URL and "
                "REGEN_DATABASE_PASSWORD.",
                detail=str(error),
            ) from error
        raise DatabaseUnavailable(
            f"The database {location(url)} cannot be used just now: {answer}.", detail=str(error)
        ) from error


def _is_transient(error: DBAPIError | NoFreeConnection) -> bool:
    if isinstance(error, NoFreeConnection):
        return True
    return error.connection_invalidated or isinstance(error, OperationalError)


def _driver_message(error: DBAPIError | NoFreeConnection) -> str:
    """The driver's message without its prefixes, which only repeat where the server is."""
    words = str(error.orig if isinstance(error, DBAPIError) else error).strip().splitlines()[0]
    for prefix in ("FATAL:", " failed:"):
        words = words.rpartition(prefix)[2].strip()
    return words.rstrip(".")


def location(url: URL) -> str:
    """The database's name and address, without the password and everything else of the URL."""
    if url.host is None:
        return str(url.database)
    return f"{url.database or ''} at {url.host}:{url.port or 5432}".strip()


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
    "prepare_threshold": None,
}

# A connection that was idle for so long is tried before it is used.
TRIED_AFTER_SECONDS = 1.0
IDLE_SINCE = "idle_since"

# A connection prepares a statement when it executes it for the fifth time: planning is most of a claim's time.
PREPARE_AT = 5
PreparedStatements = Literal["auto", "on", "off"]
STALE_PLAN = "cached plan must not change result type"

NOT_A_DATABASE_URL = (
    "REGEN_DATABASE_URL must look like postgresql://user@host:5432/name. Characters such as @ and / in a password are "
    "written as %40 and %2F there, or the password goes into REGEN_DATABASE_PASSWORD as it is."
)

WRONG_ENCODING = (
    "The database {location} has the encoding {encoding}, which cannot store names and titles in other scripts. "
    "Make another with UTF-8 and set REGEN_DATABASE_URL to it: "
    "CREATE DATABASE regen ENCODING 'UTF8' TEMPLATE template0"
)


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


def make_engine(
    url: str,
    pool: PoolLimits,
    *,
    prepared_statements: PreparedStatements = "auto",
    read_only: bool = False,
) -> Engine:
    """Does not connect yet. Raises ConfigurationError, which never shows the URL: it may contain a password."""
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite_engine(parsed, read_only=read_only)
    return _postgresql_engine(parsed, pool, prepared_statements)


def sqlite_file(url: URL) -> Path | None:
    """The path of a database in a file, otherwise None."""
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


def _postgresql_engine(url: URL, pool: PoolLimits, prepared_statements: PreparedStatements) -> Engine:
    engine = create_engine(
        url,
        # The URL's own parameters win.
        connect_args={name: value for name, value in POSTGRESQL_OPTIONS.items() if name not in url.query},
        isolation_level="READ COMMITTED",
        pool_size=pool.size,
        max_overflow=pool.overflow,
        pool_timeout=pool.timeout_seconds,
        hide_parameters=True,
        # Placeholders as PostgreSQL numbers them, for RawCursor. psycopg would look for named ones in each statement of
        # over 4096 characters anew, which a claim's are.
        paramstyle="numeric_dollar",
    )

    _try_idle_connections(engine)

    # Before SQLAlchemy's own first query, whose answer it cannot read in such a database.
    @event.listens_for(engine, "connect", insert=True)
    def require_utf8(connection: Any, _record: Any) -> None:
        encoding = connection.info.parameter_status("server_encoding")
        if encoding not in (None, "UTF8"):
            raise ConfigurationError(WRONG_ENCODING.format(location=location(url), encoding=encoding))

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _record: Any) -> None:
        connection.cursor_factory = engine.dialect.loaded_dbapi.RawCursor
        if prepared_statements == "on" or (prepared_statements == "auto" and not _is_pooled(connection)):
            connection.prepare_threshold = PREPARE_AT

    @event.listens_for(engine, "handle_error")
    def replan(context: ExceptionContext) -> None:
        # A migration changed the type of a column. New connections plan anew.
        if STALE_PLAN in str(context.original_exception):
            context.is_disconnect = True

    return engine


def _try_idle_connections(engine: Engine) -> None:
    """After a restart of the server a request costs a new connection, not an error. One that was in use a moment ago is
    not tried (SQLAlchemy's `pool_pre_ping` tries each): it would be a round trip for every transaction."""

    @event.listens_for(engine, "checkin")
    def note(_connection: Any, record: ConnectionPoolEntry) -> None:
        record.info[IDLE_SINCE] = monotonic()

    @event.listens_for(engine, "checkout")
    def try_idle(connection: Any, record: ConnectionPoolEntry, _proxy: Any) -> None:
        idle_since = record.info.get(IDLE_SINCE)
        if idle_since is None or monotonic() - idle_since < TRIED_AFTER_SECONDS:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            # The pool takes another, and tries those that are as old as this one no more.
            raise InvalidatePoolError from error


def _is_pooled(connection: Any) -> bool:
    """Whether a pooler is in between, which may give each transaction to a different server process. There
    one client's prepared statement could meet another's under the same name.
    """
    connection.autocommit = True
    (pid,) = connection.execute("SELECT pg_backend_pid()").fetchone()
    connection.autocommit = False
    return bool(pid != connection.info.backend_pid)


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
