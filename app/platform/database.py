"""The database: its sessions, and its clock.

SQLite and PostgreSQL behind one interface. On SQLite every writing session begins with BEGIN IMMEDIATE, so that it
waits for its turn at the start and can never fail half-way through for want of the write lock. On PostgreSQL
sessions are READ COMMITTED: what must not change between two statements is locked by its row.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BindParameter, DateTime, Float, literal, text
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator

from app.platform.database_engine import PoolLimits, make_engine
from app.platform.database_errors import told_to_clients, told_to_operators
from app.platform.settings import Settings


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime in UTC, also where the database keeps no time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime has no place in the database")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class database_now(FunctionElement[datetime]):  # noqa: N801  (SQL functions are written in lower case)
    """The database's own clock, plus an offset in seconds: workers' clocks may differ, leases must not."""

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
    # Not now(), which is the transaction's start: it may have waited for a lock since.
    return f"(statement_timestamp(){offset})"


class Database:
    """Sessions on one database. `read()` and `write()` are its doors; migrations have `connect()`."""

    def __init__(self, url: str, *, pool: PoolLimits | None = None) -> None:
        """Connects to nothing yet. Raises ConfigurationError for a URL that cannot be one of a database."""
        self.engine = make_engine(url, pool or PoolLimits())
        self._reader = self.engine.execution_options(postgresql_readonly=True)
        self._writer = self.engine.execution_options(regen_begin="BEGIN IMMEDIATE")

    @classmethod
    def from_settings(cls, settings: Settings) -> "Database":
        """The configured database."""
        return cls(settings.resolved_database_url, pool=PoolLimits.from_settings(settings))

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for queries alone. Raises Unavailable when the database cannot be reached."""
        with told_to_clients(), Session(self._reader, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session in one transaction: committed on a clean exit, rolled back on an exception.

        Raises Unavailable when the database cannot be reached, stays locked, or gave the transaction up.
        """
        with (
            told_to_clients(),
            Session(self._writer, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    @contextmanager
    def connect(self, *, to_write: bool = False) -> Iterator[Connection]:
        """A connection outside of any session, for who sets the database up.

        Raises Unavailable or ConfigurationError with a sentence that says what the database answered.
        """
        engine = self._writer if to_write else self._reader
        with told_to_operators(self.engine.url), engine.connect() as connection:
            yield connection

    def check(self) -> None:
        """Raise Unavailable when the database does not answer, ConfigurationError when it will not have us."""
        with self.connect() as connection:
            connection.execute(text("SELECT 1"))

    def close(self) -> None:
        self.engine.dispose()
