"""Rows of worker processes: which ones run, and each one's unit of work."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Integer,
    and_,
    bindparam,
    case,
    delete,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session

from app.platform.database import database_now, insert_into
from app.platform.lease import changed_rows
from app.platform.work_kinds import WorkQueue
from app.renders.tables import Render
from app.work.queries import Claim
from app.work.tables import MeasuredSpeed, WorkerProcess

# After so many leases without a heartbeat a worker is silent: its work was given to others long before.
SILENT_LEASES = 3

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
_IS_SHOWN = and_(
    WorkerProcess.kind == bindparam("of_kind"),
    WorkerProcess.render_id == bindparam("of_render"),
    WorkerProcess.segment_id.is_not_distinct_from(bindparam("of_segment")),
)
_MORE_DONE: BindParameter[int] = bindparam("more_done", type_=Integer)
_PUT_DOWN_UNIT = (
    update(WorkerProcess)
    .where(WorkerProcess.name == bindparam("named"), or_(_MORE_DONE > 0, _IS_SHOWN))
    .values(
        heartbeat_at=database_now(),
        units_done=WorkerProcess.units_done + _MORE_DONE,
        done_at=case((_MORE_DONE > 0, database_now()), else_=WorkerProcess.done_at),
        failures_in_a_row=case((_MORE_DONE > 0, 0), else_=WorkerProcess.failures_in_a_row),
        **{
            column: case((_IS_SHOWN, null()), else_=getattr(WorkerProcess, column))
            for column in ("kind", "render_id", "segment_id", "progress_at")
        },
    )
    .execution_options(synchronize_session=False)
)


def register(session: Session, *, name: str, facts: dict[str, Any]) -> None:
    """Add the worker's row, unless it has one. `facts` are its other columns."""
    row = {
        "name": name,
        "started_at": database_now(),
        "heartbeat_at": database_now(),
        "units_done": 0,
        **facts,
    }
    session.execute(
        insert_into(session, WorkerProcess).values(row).on_conflict_do_nothing(index_elements=["name"])
    )


def is_claiming(queue: WorkQueue, *, heard_since: database_now) -> ColumnElement[bool]:
    """The worker lives, and claims work of that queue."""
    return and_(
        WorkerProcess.heartbeat_at > heard_since,
        WorkerProcess.drained_since.is_(None),
        WorkerProcess.quarantined_since.is_(None),
        WorkerProcess.queues.contains(queue.value),
    )


def left_to_others(
    session: Session,
    *,
    name: str,
    precisions: Collection[str],
    lacked_codecs: Collection[str],
    measures_vmaf: bool,
    silent_for: float,
) -> frozenset[tuple[str, str]]:
    """The engines and precisions in which others upscale now and this worker, which has `precisions`, does not; none
    for a worker without any, which does not tell.

    Counts only those that encode every codec that this worker encodes, and measure VMAF if it does: they can take every
    render so begun.
    """
    if not precisions:
        return frozenset()
    others = select(
        WorkerProcess.engines,
        WorkerProcess.precisions,
        WorkerProcess.lacked_codecs,
        WorkerProcess.measures_vmaf,
    ).where(
        WorkerProcess.name != name,
        is_claiming(WorkQueue.GPU, heard_since=database_now(plus_seconds=-silent_for)),
    )
    return frozenset(
        (engine, precision)
        for engines, theirs, lacked, measures in session.execute(others)
        if set(lacked or ()) <= set(lacked_codecs) and measures >= measures_vmaf
        for engine in engines
        for precision in set(theirs or ()) - set(precisions)
    )


def update_engines(session: Session, *, name: str, engines: Sequence[str]) -> None:
    session.execute(update(WorkerProcess).where(WorkerProcess.name == name).values(engines=list(engines)))


def beat(session: Session, *, name: str, still_seconds: float = 0.0) -> bool:
    """Record that the worker is alive, and for how long its unit of work made no progress. False if it has no row."""
    progress_at = case((WorkerProcess.kind.is_not(None), database_now(plus_seconds=-still_seconds)))
    alive = update(WorkerProcess).where(WorkerProcess.name == name)
    return changed_rows(session, alive.values(heartbeat_at=database_now(), progress_at=progress_at))


def take_unit(session: Session, *, name: str, claim: Claim) -> None:
    """Record that the worker works on this unit. Of several in hand the row shows the last one claimed."""
    session.connection().execute(_TAKE_UNIT, {"named": name, **_unit(claim)})


def put_down_unit(session: Session, *, name: str, claim: Claim, is_done: bool) -> None:
    """Record that the worker has ended this unit."""
    parameters = {"named": name, "more_done": int(is_done), **_unit(claim)}
    session.connection().execute(_PUT_DOWN_UNIT, parameters)


def _unit(claim: Claim) -> dict[str, str | None]:
    return {"of_kind": claim.kind.value, "of_render": claim.render_id, "of_segment": claim.segment_id}


def remove(session: Session, *, name: str) -> None:
    """Remove the worker's row."""
    changed_rows(session, delete(WorkerProcess).where(WorkerProcess.name == name))


def remove_silent(session: Session, *, silent_for: float) -> None:
    """Remove the workers that last reported more than so many seconds ago."""
    silent = WorkerProcess.heartbeat_at < database_now(plus_seconds=-silent_for)
    changed_rows(session, delete(WorkerProcess).where(silent))


def list_workers(session: Session) -> Sequence[tuple[WorkerProcess, datetime, float | None, str | None]]:
    """Every worker, in the order of their start, with the database's present time, how many frames a second of the
    render in hand such devices upscale, if that was measured, and the precision of that render."""
    pixels = Render.__table__.c.input_width * Render.__table__.c.input_height
    query = (
        select(WorkerProcess, database_now(), MeasuredSpeed.pixels_per_second / pixels, Render.precision)
        .outerjoin(Render, Render.id == WorkerProcess.render_id)
        .outerjoin(
            MeasuredSpeed,
            and_(
                MeasuredSpeed.worker_device == WorkerProcess.device_name,
                MeasuredSpeed.engine == Render.engine,
            ),
        )
        .order_by(WorkerProcess.started_at, WorkerProcess.name)
    )
    return [(worker, now, speed, precision) for worker, now, speed, precision in session.execute(query)]
