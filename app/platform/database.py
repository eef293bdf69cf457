"""The database: its engine, its sessions, its clock, and its failures as typed errors.

SQLite and PostgreSQL stand behind one interface. On SQLite every writing session begins with BEGIN IMMEDIATE:
it waits for the write lock at the start and cannot fail half-way through for lack of it. On PostgreSQL
sessions are READ COMMITTED: a row lock protects rows that must not change between two statements.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, cast

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    CursorResult,
    DateTime,
    Executable,
    Float,
    Integer,
    Row,
    Select,
    String,
    bindparam,
    literal,
    literal_column,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator

from app.platform.database_engine import (
    PoolLimits,
    PreparedStatements,
    client_errors,
    make_engine,
    operator_errors,
)
from app.platform.settings import Settings

# For LIMIT in statements that every worker runs: as a parameter PostgreSQL would plan for a tenth of all rows.
ONE = literal_column("1", Integer)


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


_AMONG = "among"


def is_among(column: Any, *, is_alone: bool) -> ColumnElement[bool]:
    """Whether the column's text is one of those in `among`; `is_alone`: there is one.

    A list is written into the statement anew at each execution, which takes as long as a short statement.
    """
    if is_alone:
        return cast("ColumnElement[bool]", column == bindparam(_AMONG, type_=String))
    return cast("ColumnElement[bool]", column.in_(bindparam(_AMONG, type_=String, expanding=True)))


def among(texts: Collection[str]) -> Mapping[str, Any]:
    """The parameter of statements with `is_among`."""
    return {_AMONG: next(iter(texts)) if len(texts) == 1 else list(texts)}


def insert_into(session: Session, table: Any) -> Any:
    """An INSERT with the clause ON CONFLICT of the session's database: `on_conflict_do_nothing`, `..._do_update`."""
    return (sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert)(table)


def count_changed(session: Session, statement: Executable) -> int:
    """Execute an UPDATE or DELETE, and return how many rows it changed. Objects in the session stay as they are."""
    result = session.execute(statement.execution_options(synchronize_session=False))
    return cast(CursorResult[Any], result).rowcount


class Database:
    """Sessions on one database: `read()` and `write()` for the application, `connect()` for migrations and checks."""

    def __init__(
        self,
        url: str,
        *,
        pool: PoolLimits | None = None,
        prepared_statements: PreparedStatements = "auto",
        read_only: bool = False,
    ) -> None:
        """Does not connect yet.

        Raises ConfigurationError for a URL of an unsupported database. With `read_only` an SQLite file, which
        must exist, is not changed, and no files are made beside it.
        """
        self.engine = make_engine(
            url, pool or PoolLimits(), prepared_statements=prepared_statements, read_only=read_only
        )
        self._reader = self.engine.execution_options(postgresql_readonly=True)
        # A connection that only selects needs no transaction, whose begin and end are a trip to the server each.
        # Made of the engine itself: each level in between takes time at every event of a connection.
        self._selecting = self.engine.execution_options(
            postgresql_readonly=True, **({} if self.is_sqlite else {"isolation_level": "AUTOCOMMIT"})
        )
        self._writer = self.engine.execution_options(regen_begin="BEGIN IMMEDIATE")

    @classmethod
    def from_settings(cls, settings: Settings, *, read_only: bool = False) -> "Database":
        """The configured database."""
        return cls(
            settings.resolved_database_url,
            pool=PoolLimits.from_settings(settings),
            prepared_statements=settings.database_prepared_statements,
            read_only=read_only,
        )

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A read-only session. Raises Unavailable when the database cannot be reached."""
        # Committed although nothing changed: after a rollback the driver drops its prepared statements.
        with (
            client_errors(),
            Session(self._reader, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    @contextmanager
    def read_columns(self) -> Iterator[Connection]:
        """A connection for `fetch_rows` alone. Raises Unavailable when the database cannot be reached."""
        with client_errors(), self._selecting.begin() as connection:
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
