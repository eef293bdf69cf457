"""Whose turn it is: users take turns, so that nobody's many renders keep another's waiting.

There are two turns, one for segments and one for renders to prepare, which are the work of different machines. The turn
of a user is when their work of that kind was last claimed; the longest ago is next, and never comes first of all.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Row, String, and_, bindparam, false, literal_column, select, update
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import InstrumentedAttribute, Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import ReturningUpdate
from sqlalchemy.sql.functions import FunctionElement

from app.accounts.tables import User
from app.platform.database import UtcDateTime

# So many of those next in line are looked at. When they all have their work claimed just now, one is waited for.
MOST_RIVALS = 64
AMONG = bindparam("among", type_=String, expanding=True)


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


class Line:
    """Users who wait for a turn of one kind: those for whom `has_work` holds.

    `is_capped` says for whom claiming one unit may leave no other to claim. Both are conditions on the rows of users,
    and may hold parameters. The statements are made once: they are large, and every claim asks them.
    """

    def __init__(
        self,
        turn: Turn,
        *,
        has_work: ColumnElement[bool],
        is_capped: ColumnElement[bool] = false(),  # noqa: B008  (an expression, which is never changed)
    ) -> None:
        waiting = select(User.id, turn.column, is_capped).where(has_work).order_by(*turn.order)
        self._first = waiting.limit(MOST_RIVALS)
        self._take = _take(turn)

    def first(self, session: Session, parameters: Mapping[str, Any]) -> Sequence[Row[str, Any, bool]]:
        """Those who are next, in turn: each one's id, when their last turn was, and whether they are capped."""
        return session.execute(self._first, parameters).all()

    def take(self, session: Session, users: Iterable[str]) -> str | None:
        """Of these users the next one whose row nobody has locked. Their turn is over then."""
        return session.scalar(self._take, {AMONG.key: list(users)})


def take_turn(session: Session, line: Line, **parameters: object) -> str | None:
    """The user whose turn it is; it is over then. None when nobody has any work. `parameters` are those of the line.

    On PostgreSQL the user's row is locked until the session ends, so that no two workers serve one user on the same
    grounds: the next statement sees all that was claimed for them. A user whose row another worker has locked is
    passed over. When all are locked, one is waited for. Only a user who has neither rivals nor a cap is served by
    several workers at once: there is nothing that a lock would keep in order.
    """
    held = None
    while users := line.first(session, parameters):
        user_id = line.take(session, (row[0] for row in users))
        if user_id is not None:
            if held is not None:
                held.commit()
            return user_id
        if held is not None:
            held.rollback()
        rival, _turn, capped = random.choice(users)  # noqa: S311
        if len(users) == 1 and not capped:
            return str(rival)
        # Whoever waits for one user holds no other: the savepoint's end gives up what was waited for.
        held = session.begin_nested()
        session.execute(select(User.id).where(User.id == rival).with_for_update(key_share=True))
    if held is not None:
        held.rollback()
    return None


def first_in_line(session: Session, line: Line) -> tuple[str, datetime | None] | None:
    """Whose turn it would be, and when their last one was. Takes nothing."""
    users = line.first(session, {})
    return (users[0][0], users[0][1]) if users else None


@cache
def _take(turn: Turn) -> ReturningUpdate[str]:
    line = select(User.id, turn.column.label("turn")).where(User.id.in_(AMONG)).cte("line")
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
    return (
        update(User)
        .where(User.id == first)
        .values({turn.column: end_of_line(turn)})
        .returning(User.id)
        .execution_options(synchronize_session=False)
    )
