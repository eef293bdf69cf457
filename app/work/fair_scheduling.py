"""Fair scheduling: round robin over the users who have work, the least recently served first.

There are two rotations, one for segments and one for renders to prepare, which different machines work on. A user's
place in a rotation is the time at which their work of that kind was last claimed; a user never served comes first.
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

# How many of the next users are considered. When other workers serve them all just now, one of them is waited for.
MOST_CANDIDATES = 64
AMONG = bindparam("among", type_=String, expanding=True)


class Rotation(StrEnum):
    """The two rotations, by the column of `users` that holds when a user was last served."""

    SEGMENTS = "served_at"
    PREPARE = "prepared_at"

    @property
    def column(self) -> InstrumentedAttribute[Any]:
        column: InstrumentedAttribute[Any] = getattr(User, self.value)
        return column

    @property
    def order(self) -> tuple[ColumnElement[Any], ...]:
        """The order in which users are served."""
        return self.column.asc().nulls_first(), User.id.asc()


class last_served_now(FunctionElement[Any]):  # noqa: N801  (SQL functions are written in lower case)
    """The database's present time, made later than every other user's in the rotation."""

    type = UtcDateTime()
    inherit_cache = True
    name = "last_served_now"

    def __init__(self, rotation: Rotation) -> None:
        super().__init__(literal_column(rotation.value))


@compiles(last_served_now, "postgresql")
def _postgresql_last_served(element: last_served_now, compiler: SQLCompiler, **_: Any) -> str:
    return "statement_timestamp()"


@compiles(last_served_now, "sqlite")
def _sqlite_last_served(element: last_served_now, compiler: SQLCompiler, **options: Any) -> str:
    # Its clock counts milliseconds, in which several claims have room: the second counts one microsecond more.
    now = "strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'"
    last = f"(SELECT max({compiler.process(element.clauses, **options)}) FROM users)"  # noqa: S608
    next_microsecond = f"substr({last}, 1, 23) || printf('%03d', substr({last}, 24, 3) + 1)"
    next_millisecond = f"strftime('%Y-%m-%d %H:%M:%f', {last}, '+0.001 seconds') || '000'"
    return (
        f"(CASE WHEN {last} IS NULL OR {now} > {last} THEN {now} "
        f"WHEN substr({last}, 24, 3) < '999' THEN {next_microsecond} ELSE {next_millisecond} END)"
    )


class RoundRobin:
    """The users in one rotation for whom `has_work` holds.

    `is_capped` holds for users of whom one claimed unit may leave no other to claim. Both are conditions on rows of
    users, and may contain parameters. The statements are built once: they are large, and every claim runs them.
    """

    def __init__(
        self,
        rotation: Rotation,
        *,
        has_work: ColumnElement[bool],
        is_capped: ColumnElement[bool] = false(),  # noqa: B008  (an expression, which is never changed)
    ) -> None:
        waiting = select(User.id, rotation.column, is_capped).where(has_work).order_by(*rotation.order)
        self._first = waiting.limit(MOST_CANDIDATES)
        self._serve = _serve(rotation)

    def candidates(self, session: Session, parameters: Mapping[str, Any]) -> Sequence[Row[str, Any, bool]]:
        """The next users in order: each one's id, when they were last served, and whether they are capped."""
        return session.execute(self._first, parameters).all()

    def serve(self, session: Session, users: Iterable[str]) -> str | None:
        """Move the first of these users whose row is not locked to the rotation's end. Returns their id."""
        return session.scalar(self._serve, {AMONG.key: list(users)})


def serve_next_user(session: Session, round_robin: RoundRobin, **parameters: object) -> str | None:
    """Move the next user to the rotation's end. Returns their id; None when no user has work.

    `parameters` are those of the round robin's conditions.

    On PostgreSQL the user's row stays locked until the session ends, so that no two workers serve one user on the same
    grounds: the next statement sees all that was claimed for them. A user whose row another worker has locked is
    passed over. When all are locked, one is waited for. Only a user without rivals and without a cap is served by
    several workers at once: a lock would keep nothing in order.
    """
    held = None
    while users := round_robin.candidates(session, parameters):
        user_id = round_robin.serve(session, (row[0] for row in users))
        if user_id is not None:
            if held is not None:
                held.commit()
            return user_id
        if held is not None:
            held.rollback()
        rival, _last_served, capped = random.choice(users)  # noqa: S311
        if len(users) == 1 and not capped:
            return str(rival)
        # A worker that waits for one user holds no other: the savepoint's end gives up what was waited for.
        held = session.begin_nested()
        session.execute(select(User.id).where(User.id == rival).with_for_update(key_share=True))
    if held is not None:
        held.rollback()
    return None


def peek_next_user(session: Session, round_robin: RoundRobin) -> tuple[str, datetime | None] | None:
    """The next user's id, and when they were last served. Changes nothing."""
    users = round_robin.candidates(session, {})
    return (users[0][0], users[0][1]) if users else None


@cache
def _serve(rotation: Rotation) -> ReturningUpdate[str]:
    candidates = (
        select(User.id, rotation.column.label("last_served")).where(User.id.in_(AMONG)).cte("candidates")
    )
    # A user who was served since this statement began is not locked either: they are at the rotation's end.
    unserved = and_(
        User.id == candidates.c.id, rotation.column.is_not_distinct_from(candidates.c.last_served)
    )
    first = (
        select(User.id)
        .join(candidates, unserved)
        .order_by(candidates.c.last_served.asc().nulls_first(), candidates.c.id)
        .limit(1)
        .with_for_update(of=User, skip_locked=True, key_share=True)
        .correlate(None)
        .scalar_subquery()
    )
    return (
        update(User)
        .where(User.id == first)
        .values({rotation.column: last_served_now(rotation)})
        .returning(User.id)
        .execution_options(synchronize_session=False)
    )
