"""The rows of worker processes: who is there, and what each has in hand."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

from sqlalchemy import CursorResult, Delete, Integer, Update, bindparam, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.platform.database import database_now
from app.work.queries import Claim
from app.work.tables import Worker

# Made once, for they go with every claim.
_TAKE_UNIT = (
    update(Worker)
    .where(Worker.name == bindparam("named"))
    .values(
        heartbeat_at=database_now(),
        kind=bindparam("of_kind"),
        render_id=bindparam("of_render"),
        segment_id=bindparam("of_segment"),
    )
    .execution_options(synchronize_session=False)
)
_PUT_DOWN_UNIT = (
    update(Worker)
    .where(Worker.name == bindparam("named"), Worker.kind.is_not(None))
    .values(
        heartbeat_at=database_now(),
        kind=None,
        render_id=None,
        segment_id=None,
        units_done=Worker.units_done + bindparam("more_done", type_=Integer),
    )
    .execution_options(synchronize_session=False)
)


def register(session: Session, *, name: str, facts: dict[str, Any]) -> None:
    """The worker lives, from now on. `facts` are the columns that do not change while it does."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    row = {
        "name": name,
        "started_at": database_now(),
        "heartbeat_at": database_now(),
        "units_done": 0,
        **facts,
    }
    session.execute(insert(Worker).values(row).on_conflict_do_nothing(index_elements=["name"]))


def beat(session: Session, *, name: str) -> bool:
    """The worker is heard of. False when it has no row."""
    return (
        _changed(session, update(Worker).where(Worker.name == name).values(heartbeat_at=database_now())) == 1
    )


def take_unit(session: Session, *, name: str, claim: Claim) -> None:
    """The worker has this in hand."""
    unit = {"of_kind": claim.kind.value, "of_render": claim.render_id, "of_segment": claim.segment_id}
    session.execute(_TAKE_UNIT, {"named": name, **unit})


def put_down_unit(session: Session, *, name: str, is_done: bool) -> None:
    """The worker has nothing in hand any more. Nothing is written when it had nothing."""
    session.execute(_PUT_DOWN_UNIT, {"named": name, "more_done": int(is_done)})


def remove(session: Session, *, name: str) -> None:
    _changed(session, delete(Worker).where(Worker.name == name))


def forget_silent(session: Session, *, silent_for: float) -> int:
    """Remove those that were not heard of for so many seconds. Returns how many."""
    return _changed(
        session, delete(Worker).where(Worker.heartbeat_at < database_now(plus_seconds=-silent_for))
    )


def list_workers(session: Session) -> Sequence[tuple[Worker, datetime]]:
    """Every worker with the database's present time, those that started first coming first."""
    query = select(Worker, database_now()).order_by(Worker.started_at, Worker.name)
    return [(worker, now) for worker, now in session.execute(query)]


def _changed(session: Session, statement: Update | Delete) -> int:
    result = session.execute(statement.execution_options(synchronize_session=False))
    return cast(CursorResult[Any], result).rowcount
