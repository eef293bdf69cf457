"""Rows as JSON, independent of the database that they come from."""

import json
from collections.abc import Iterable, Iterator
from datetime import date, datetime
from enum import StrEnum
from fractions import Fraction
from typing import Any

from sqlalchemy import Connection, Date, insert, select
from sqlalchemy import Table as CoreTable
from sqlalchemy.types import TypeEngine

from app.platform.database import UtcDateTime
from app.platform.tables import ExactFraction, StatusText
from app.previews.tables import Preview
from app.renders.statuses import ENDED, RenderStatus
from app.renders.tables import Render, Segment, UnitOfWork
from app.tables import Table
from app.uploads.tables import Upload
from app.work.tables import FailedAttempt, PeriodicTask, WorkerProcess

# Tables of running processes and of unfinished requests.
TRANSIENT = frozenset(
    table.__tablename__ for table in (FailedAttempt, PeriodicTask, Preview, Upload, WorkerProcess)
)
BATCH = 500

# Columns that the work on a render writes. The number of the attempt stays: file names contain it.
_WORK_COLUMNS = frozenset(
    Render.__mapper__.attrs[name].columns[0].name
    for base in UnitOfWork.__mro__
    for name in getattr(base, "__annotations__", {})
    if name in Render.__mapper__.attrs and name not in ("id", "status", "attempt")
) | {"plan", "unplanned_frames"}


def kept_tables() -> list[CoreTable]:
    """The tables in a backup, in an order in which no row precedes one that it refers to."""
    return [table for table in Table.metadata.sorted_tables if table.name not in TRANSIENT]


def dump(connection: Connection, table: CoreTable) -> Iterator[str]:
    """The rows of a table, each a line of JSON.

    Segments of renders that have not ended are left out: see `load`.
    """
    statement = select(table)
    if table.name == Segment.__tablename__:
        ended = select(Render.id).where(Render.status.in_(ENDED))
        statement = statement.where(table.c.render_id.in_(ended))
    rows = connection.execution_options(yield_per=BATCH).execute(statement)
    for row in rows.mappings():
        yield json.dumps(dict(row), default=_text, ensure_ascii=False, separators=(",", ":")) + "\n"


def load(connection: Connection, table: CoreTable, lines: Iterable[str]) -> int:
    """Insert rows that `dump` wrote. Returns their number. Raises ValueError or KeyError for invalid rows."""
    count, batch = 0, []
    for line in lines:
        batch.append(parse(table, line))
        if len(batch) == BATCH:
            connection.execute(insert(table), batch)
            count, batch = count + len(batch), []
    if batch:
        connection.execute(insert(table), batch)
    return count + len(batch)


def parse(table: CoreTable, line: str) -> dict[str, Any]:
    """Return the row of a line that `dump` wrote.

    An unfinished render is queued, to be made from its beginning: its workers' stored results are not kept.
    Raises ValueError or KeyError for an invalid row.
    """
    row = {name: _value(table.c[name].type, value) for name, value in json.loads(line).items()}
    if table.name == Render.__tablename__ and not RenderStatus(row["status"]).is_final:
        return _queued(table, row)
    return row


def _queued(table: CoreTable, row: dict[str, Any]) -> dict[str, Any]:
    fresh = {name: 0 if not table.c[name].nullable else None for name in _WORK_COLUMNS}
    return row | fresh | {"status": RenderStatus.QUEUED}


def _text(value: Any) -> str:
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Fraction | StrEnum):
        return str(value)
    raise TypeError(f"a backup has no form for {type(value).__name__}")


def _value(column: TypeEngine[Any], value: Any) -> Any:
    if value is None:
        return None
    if isinstance(column, UtcDateTime):
        return datetime.fromisoformat(value)
    if isinstance(column, Date):
        return date.fromisoformat(value)
    if isinstance(column, ExactFraction):
        return Fraction(value)
    if isinstance(column, StatusText):
        return column.enum(value)
    return value
