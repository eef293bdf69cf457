"""Chores: what one of all workers does from time to time."""

from typing import Any, cast

from sqlalchemy import CursorResult, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.platform.database import database_now
from app.work.tables import Chore


def take_chore(session: Session, name: str, *, worker: str, every_seconds: float) -> bool:
    """Whether the chore is due and now this worker's; nobody else is told so for `every_seconds`."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    session.execute(
        insert(Chore).values(name=name, due_at=database_now()).on_conflict_do_nothing(index_elements=["name"])
    )
    result = session.execute(
        update(Chore)
        .where(Chore.name == name, Chore.due_at <= database_now())
        .values(due_at=database_now(plus_seconds=every_seconds), worker=worker)
        .execution_options(synchronize_session=False)
    )
    return cast(CursorResult[Any], result).rowcount == 1


def leave_chore(session: Session, name: str, *, worker: str) -> None:
    """This worker could not do it after all: it is due again, for anybody."""
    session.execute(
        update(Chore)
        .where(Chore.name == name, Chore.worker == worker)
        .values(due_at=database_now())
        .execution_options(synchronize_session=False)
    )
