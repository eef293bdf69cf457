"""Whose turn it is: users take turns, so that nobody's many renders keep another's waiting.

There are two turns, one for segments and one for renders to prepare, which are the work of different machines. The turn
of a user is when their work of that kind was last claimed; the longest ago is next, and never comes first of all.
"""

import random
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, and_, false, literal_column, select, update
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import InstrumentedAttribute, Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from app.core.database import UtcDateTime
from app.core.tables import User

# Among so many users who all have their work claimed just now, one is picked to wait for.
MOST_RIVALS = 16


class Turn(StrEnum):
    """The two turns, by the column of `users` that keeps them."""

    SEGMENTS = "served_at"
    PREPARE = "prepared_at"

    @property
    def column(self) -> InstrumentedAttribute[Any]:
        column: InstrumentedAttribute[Any] = getattr(User, self.value)
        return column

    @property
    def order(self) -> tuple[ColumnElement[Any], ...]:
        """What users are sorted by to have the next one first."""
        return self.column.asc().nulls_first(), User.id.asc()


class end_of_line(FunctionElement[Any]):  # noqa: N801  (SQL functions are written in lower case)
    """The database's present time as a turn: later than everybody's."""

    type = UtcDateTime()
    inherit_cache = True
    name = "end_of_line"

    def __init__(self, turn: Turn) -> None:
        super().__init__(literal_column(turn.value))


@compiles(end_of_line, "postgresql")
def _postgresql_end(element: end_of_line, compiler: SQLCompiler, **_: Any) -> str:
    return "statement_timestamp()"


@compiles(end_of_line, "sqlite")
def _sqlite_end(element: end_of_line, compiler: SQLCompiler, **options: Any) -> str:
    # Its clock counts milliseconds, in which several claims have room: the second counts one microsecond more.
    now = "strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'"
    last = f"(SELECT max({compiler.process(element.clauses, **options)}) FROM users)"  # noqa: S608
    next_microsecond = f"substr({last}, 1, 23) || printf('%03d', substr({last}, 24, 3) + 1)"
    next_millisecond = f"strftime('%Y-%m-%d %H:%M:%f', {last}, '+0.001 seconds') || '000'"
    return (
        f"(CASE WHEN {last} IS NULL OR {now} > {last} THEN {now} "
        f"WHEN substr({last}, 24, 3) < '999' THEN {next_microsecond} ELSE {next_millisecond} END)"
    )


def take_turn(
    session: Session,
    turn: Turn,
    *,
    has_work: ColumnElement[bool],
    is_capped: ColumnElement[bool] = false(),  # noqa: B008  (an expression, which is never changed)
) -> str | None:
    """The user whose turn it is among those that have work; their turn is over then. None when nobody has any.

    On PostgreSQL the user's row is locked until the session ends, so that no two workers serve one user on the same
    grounds: the next statement sees all that was claimed for them. A user whose row another worker has locked is
    passed over. When all are locked, one is waited for. Only a user who has neither rivals nor a cap is served by
    several workers at once: there is nothing that a lock would keep in order.
    """
    user_id = _take(session, turn, has_work)
    if user_id is not None or session.get_bind().dialect.name == "sqlite":
        return user_id
    while rivals := session.execute(select(User.id, is_capped).where(has_work).limit(MOST_RIVALS)).all():
        rival, capped = random.choice(rivals)  # noqa: S311
        if len(rivals) == 1 and not capped:
            return str(rival)
        # Whoever waits for one user holds no other: the savepoint's end gives up what was waited for.
        savepoint = session.begin_nested()
        session.execute(select(User.id).where(User.id == rival).with_for_update(key_share=True))
        user_id = _take(session, turn, has_work)
        if user_id is not None:
            savepoint.commit()
            return user_id
        savepoint.rollback()
    return None


def first_in_line(
    session: Session, turn: Turn, *, has_work: ColumnElement[bool]
) -> tuple[str, datetime | None] | None:
    """Whose turn it would be, and when their last one was. Takes nothing."""
    query = select(User.id, turn.column).where(has_work).order_by(*turn.order).limit(1)
    row = session.execute(query).one_or_none()
    return None if row is None else (row[0], row[1])


def _take(session: Session, turn: Turn, has_work: ColumnElement[bool]) -> str | None:
    line = select(User.id, turn.column.label("turn")).where(has_work).cte("line")
    # A user who was served since this statement began is not locked either: they are at the end of the line.
    unserved = and_(User.id == line.c.id, turn.column.is_not_distinct_from(line.c.turn))
    first = (
        select(User.id)
        .join(line, unserved)
        .order_by(line.c.turn.asc().nulls_first(), line.c.id)
        .limit(1)
        .with_for_update(of=User, skip_locked=True, key_share=True)
        .correlate(None)
        .scalar_subquery()
    )
    return session.scalar(
        update(User)
        .where(User.id == first)
        .values({turn.column: end_of_line(turn)})
        .returning(User.id)
        .execution_options(synchronize_session=False)
    )
