"""Fair scheduling: round robin over the users who have work, the least recently served first.

There is a rotation for each kind of unit, because different machines serve them. A user's place in a rotation is the
time at which their work of that kind was last claimed; a user never served comes first.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Result,
    Row,
    String,
    and_,
    bindparam,
    false,
    literal_column,
    select,
    update,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import InstrumentedAttribute, Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from app.accounts.tables import User
from app.platform.database import ONE, ColumnReader, UtcDateTime, commits_lazily, fetch_rows

# How many of the next users are considered. If other workers are serving all of them, the claim waits for one.
MOST_CANDIDATES = 64
OF_USER = bindparam("of_user", type_=String)


class Rotation(StrEnum):
    """The rotations, by the column of `users` with the time at which a user was last served."""

    SEGMENTS = "served_at"
    PREPARE = "prepared_at"
    FINISH = "finished_at"

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
    # Its clock counts milliseconds, and several claims may share one: each further one adds a microsecond.
    now = "strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'"
    last = f"(SELECT max({compiler.process(element.clauses, **options)}) FROM users)"  # noqa: S608
    next_microsecond = f"substr({last}, 1, 23) || printf('%03d', substr({last}, 24, 3) + 1)"
    next_millisecond = f"strftime('%Y-%m-%d %H:%M:%f', {last}, '+0.001 seconds') || '000'"
    return (
        f"(CASE WHEN {last} IS NULL OR {now} > {last} THEN {now} "
        f"WHEN substr({last}, 24, 3) < '999' THEN {next_microsecond} ELSE {next_millisecond} END)"
    )


@dataclass(frozen=True)
class Turn:
    """A user to serve. For a capped user one claim may leave nothing to claim."""

    user_id: str
    is_capped: bool


class RoundRobin:
    """The users in one rotation for whom `has_work` holds.

    `is_capped` holds for users for whom one claimed unit may leave no other to claim. Both are conditions on rows of
    users, and may contain parameters. The statements are built once: they are large, and every claim runs them.
    """

    def __init__(
        self,
        rotation: Rotation,
        *,
        has_work: ColumnElement[bool],
        is_capped: ColumnElement[bool] = false(),  # noqa: B008  (an expression, which is never changed)
    ) -> None:
        following = select(User.id, rotation.column.label("last_served")).where(has_work)
        self._next = following.order_by(*rotation.order).limit(literal_column(str(MOST_CANDIDATES)))
        candidates = self._next.cte("candidates").prefix_with("MATERIALIZED", dialect="postgresql")
        # A user served since this statement began is not locked either: they are at the rotation's end.
        unserved = and_(
            User.id == candidates.c.id, rotation.column.is_not_distinct_from(candidates.c.last_served)
        )
        first = (
            select(User.id)
            .join(candidates, unserved)
            .order_by(candidates.c.last_served.asc().nulls_first(), candidates.c.id)
            .limit(ONE)
            .with_for_update(of=User, skip_locked=True, key_share=True)
            .correlate(None)
            .scalar_subquery()
        )
        serve = (
            update(User)
            .values({rotation.column: last_served_now(rotation)})
            .returning(User.id, is_capped.label("is_capped"), commits_lazily())
            .execution_options(synchronize_session=False)
        )
        self._serve_next = serve.where(User.id == first)
        self._serve_one = serve.where(User.id == OF_USER)

    def candidates(
        self, reader: ColumnReader, parameters: Mapping[str, Any]
    ) -> Sequence[Row[*tuple[Any, ...]]]:
        """The next users in order: each one's id, and when they were last served."""
        return fetch_rows(reader, self._next, parameters)

    def serve_next(self, connection: Connection, parameters: Mapping[str, Any]) -> Turn | None:
        """The turn of the first user whose row is not locked."""
        return _turn(connection.execute(self._serve_next, parameters))

    def serve(self, connection: Connection, user_id: str, parameters: Mapping[str, Any]) -> Turn | None:
        """The turn of this user; waits for the row's lock. None if there is no such user."""
        return _turn(connection.execute(self._serve_one, {**parameters, OF_USER.key: user_id}))


def take_turn(session: Session, round_robin: RoundRobin, **parameters: object) -> Turn | None:
    """Move the next user to the rotation's end. None when no user has work.

    `parameters` are those of the round robin's conditions.

    On PostgreSQL a turn is a separate transaction, which locks the user's row for one statement and not until
    the claim is on the disk. A user whose row is locked is passed over. If all are locked, all are being
    served, and the turn waits for one of them. A turn without a claim costs the user a turn.
    """
    with _turns(session) as connection:
        turn = round_robin.serve_next(connection, parameters)
        while turn is None and (users := round_robin.candidates(connection, parameters)):
            turn = round_robin.serve(connection, random.choice(users)[0], parameters)  # noqa: S311
        return turn


def peek_next_user(
    session: Session, round_robin: RoundRobin, **parameters: object
) -> tuple[str, datetime | None] | None:
    """The next user's id, and when they were last served. Changes nothing."""
    users = round_robin.candidates(session, parameters)
    return (users[0][0], users[0][1]) if users else None


@contextmanager
def _turns(session: Session) -> Iterator[Connection]:
    """The connection for turns: one without a transaction; on SQLite, which has one writer, the session's own."""
    engine = session.get_bind().engine
    if engine.dialect.name == "sqlite":
        yield session.connection()
        return
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


def _turn(served: Result[*tuple[Any, ...]]) -> Turn | None:
    row = served.one_or_none()
    return None if row is None else Turn(user_id=row.id, is_capped=row.is_capped)
