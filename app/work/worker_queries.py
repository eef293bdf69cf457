"""Rows of worker processes: which ones run, and the unit that each works on."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Integer, bindparam, case, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.platform.database import database_now
from app.platform.lease import changed_rows
from app.work.queries import Claim
from app.work.tables import WorkerProcess

# Built once: every claim runs them.
_TAKE_UNIT = (
    update(WorkerProcess)
    .where(WorkerProcess.name == bindparam("named"))
    .values(
        heartbeat_at=database_now(),
        kind=bindparam("of_kind"),
        render_id=bindparam("of_render"),
        segment_id=bindparam("of_segment"),
        progress_at=database_now(),
    )
    .execution_options(synchronize_session=False)
)
_PUT_DOWN_UNIT = (
    update(WorkerProcess)
    .where(WorkerProcess.name == bindparam("named"), WorkerProcess.kind.is_not(None))
    .values(
        heartbeat_at=database_now(),
        kind=None,
        render_id=None,
        segment_id=None,
        progress_at=None,
        units_done=WorkerProcess.units_done + bindparam("more_done", type_=Integer),
    )
    .execution_options(synchronize_session=False)
)


def register(session: Session, *, name: str, facts: dict[str, Any]) -> None:
    """Add the worker's row, unless it has one. `facts` are the columns that never change."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    row = {
        "name": name,
        "started_at": database_now(),
        "heartbeat_at": database_now(),
        "units_done": 0,
        **facts,
    }
    session.execute(insert(WorkerProcess).values(row).on_conflict_do_nothing(index_elements=["name"]))


def beat(session: Session, *, name: str, still_seconds: float = 0.0) -> bool:
    """Note that the worker is alive, and for how long its unit of work made no progress. False when it has no row."""
    progress_at = case((WorkerProcess.kind.is_not(None), database_now(plus_seconds=-still_seconds)))
    alive = update(WorkerProcess).where(WorkerProcess.name == name)
    return changed_rows(session, alive.values(heartbeat_at=database_now(), progress_at=progress_at))


def take_unit(session: Session, *, name: str, claim: Claim) -> None:
    """Note that the worker works on this unit."""
    unit = {"of_kind": claim.kind.value, "of_render": claim.render_id, "of_segment": claim.segment_id}
    session.execute(_TAKE_UNIT, {"named": name, **unit})


def put_down_unit(session: Session, *, name: str, is_done: bool) -> None:
    """Note that the worker works on no unit. Writes nothing when it had none."""
    session.execute(_PUT_DOWN_UNIT, {"named": name, "more_done": int(is_done)})


def remove(session: Session, *, name: str) -> None:
    """Remove the worker's row."""
    changed_rows(session, delete(WorkerProcess).where(WorkerProcess.name == name))


def remove_silent(session: Session, *, silent_for: float) -> None:
    """Remove the workers that were last heard of more than so many seconds ago."""
    silent = WorkerProcess.heartbeat_at < database_now(plus_seconds=-silent_for)
    changed_rows(session, delete(WorkerProcess).where(silent))


def list_workers(session: Session) -> Sequence[tuple[WorkerProcess, datetime]]:
    """Every worker, in the order of their start, with the database's present time."""
    query = select(WorkerProcess, database_now()).order_by(WorkerProcess.started_at, WorkerProcess.name)
    return [(worker, now) for worker, now in session.execute(query)]
