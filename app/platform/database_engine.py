"""How connections to the database are made and kept."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.engine import Connection
from sqlalchemy.exc import ArgumentError

from app.platform.errors import ConfigurationError
from app.platform.settings import Settings

BUSY_TIMEOUT_SECONDS = 30

# Of our own statements none takes long. A transaction that its client has forgotten must not hold its rows' locks for
# as long as a lease: heartbeats wait for them.
STATEMENT_TIMEOUT_SECONDS = 15
IDLE_TRANSACTION_TIMEOUT_SECONDS = 10

# A server that answers nothing is given up after five seconds; a connection that dies without a word is noticed after
# fifteen, whether it was silent (keepalives) or waited for an acknowledgement (tcp_user_timeout).
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
    # Statements that the server keeps prepared would not survive a pooler between us, or a migration under way.
    "prepare_threshold": None,
}

NOT_A_DATABASE_URL = (
    "REGEN_DATABASE_URL must look like postgresql://user@host:5432/name. Characters such as @ and / in a password are "
    "written as %40 and %2F there, or the password goes into REGEN_DATABASE_PASSWORD as it is."
)


@dataclass(frozen=True, kw_only=True)
class PoolLimits:
    """How many connections a process keeps and may open beyond, and how long one is waited for. Not for SQLite.

    It keeps all of them: opening one takes longer than what most requests ask, and those beyond are opened anew each
    time.
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


def make_engine(url: str, pool: PoolLimits) -> Engine:
    """Nothing is connected yet. Raises ConfigurationError, which never shows the URL: it may hold a password."""
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite_engine(parsed)
    return _postgresql_engine(parsed, pool)


def parse_url(url: str) -> URL:
    """Raises ConfigurationError for a URL that is neither SQLite's nor PostgreSQL's."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # Not "from": their words may quote the URL.
        raise ConfigurationError(NOT_A_DATABASE_URL) from None
    known = parsed.drivername in ("sqlite", "postgresql", "postgresql+psycopg")
    if not known or "@" in (parsed.host or ""):
        raise ConfigurationError(NOT_A_DATABASE_URL)
    return parsed


def _postgresql_engine(url: URL, pool: PoolLimits) -> Engine:
    return create_engine(
        url,
        # What the URL says of them wins.
        connect_args={name: value for name, value in POSTGRESQL_OPTIONS.items() if name not in url.query},
        isolation_level="READ COMMITTED",
        pool_size=pool.size,
        max_overflow=pool.overflow,
        pool_timeout=pool.timeout_seconds,
        # A server that was restarted costs a new connection, not an error.
        pool_pre_ping=True,
        hide_parameters=True,
    )


def _sqlite_engine(url: URL) -> Engine:
    if url.database and url.database != ":memory:":
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_SECONDS}, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        # The driver must not open transactions of its own: the "begin" event below says how each one starts.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_SECONDS * 1000}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("regen_begin", "BEGIN"))

    return engine
