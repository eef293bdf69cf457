"""Changes of a render that a worker's progress does not make: failed, canceled, deleted."""

from typing import Any

from sqlalchemy import ColumnElement, and_, case, select
from sqlalchemy.orm import Session

from app.platform.database import Database, database_now
from app.platform.errors import Conflict
from app.platform.lease import revoke
from app.platform.storage.contract import Storage, delete_under
from app.platform.storage.keys import render_prefix
from app.renders import queries as render_queries
from app.renders import webhook_events
from app.renders.service import get_render
from app.renders.statuses import RenderStatus, SegmentStatus
from app.renders.tables import Render, Segment


def taken_from_queue() -> dict[str, ColumnElement[Any]]:
    """The columns of a render of which a claim takes the preparation or the finish: a queued one becomes `pending`."""
    queued = Render.status == RenderStatus.QUEUED
    return {
        "status": case((queued, RenderStatus.PENDING), else_=Render.status),
        "started_at": case((queued, database_now()), else_=Render.started_at),
    }


def fail_render(session: Session, *, render_id: str, error: str) -> bool:
    """End an unfinished render as failed, and its unfinished segments. False if it had already ended."""
    changed = revoke(
        session,
        Render,
        Render.id == render_id,
        Render.status.in_(RenderStatus.FAILED.predecessors),
        status=RenderStatus.FAILED,
        error=error,
        ended_at=database_now(),
    )
    if changed:
        unfinished = and_(Segment.render_id == render_id, Segment.status != SegmentStatus.DONE)
        revoke(session, Segment, unfinished, status=SegmentStatus.FAILED)
        webhook_events.write_event(session, render_id=render_id, status=RenderStatus.FAILED)
    return changed


def cancel_overdue(database: Database) -> list[str]:
    """End the unfinished renders whose time (`cancel_after`) is over. Returns their ids. Very cheap if none is."""
    overdue = select(Render.id, Render.cancel_after).where(
        Render.status.in_(RenderStatus.FAILED.predecessors), Render.cancel_at <= database_now()
    )
    with database.read() as session:
        found = session.execute(overdue).all()
    ended = []
    for render_id, seconds in found:
        with database.write() as session:
            error = f"Canceled: it was not done within {seconds:,} second{'' if seconds == 1 else 's'}."
            if fail_render(session, render_id=render_id, error=error):
                ended.append(render_id)
    return ended


CANCELED = "Canceled"


def cancel_render(session: Session, *, render_id: str, user_id: str) -> Render:
    """End the user's unfinished render as failed.

    Returns one that had already failed unchanged. A worker that holds it learns this from its next heartbeat, and its
    result is refused. Raises NotFound for an unknown render and another user's, Conflict for a completed one.
    """
    before = get_render(session, render_id=render_id, user_id=user_id)
    fail_render(session, render_id=render_id, error=CANCELED)
    # Another process may have ended it since it was read.
    session.expire(before)
    render = get_render(session, render_id=render_id, user_id=user_id)
    if render.status is RenderStatus.COMPLETED:
        raise Conflict("The render is already completed: it can be deleted, but not canceled.")
    return render


def delete_render(database: Database, storage: Storage, *, render_id: str, user_id: str) -> None:
    """Delete the user's ended render: first its links, then its files, last its rows.

    A crash in between leaves a render without files, which can be deleted again. A late worker may still
    store an object without a row, which the clean-up finds. Raises NotFound for an unknown render and another
    user's, Conflict for one that has not ended, StorageError when the files cannot be removed.
    """
    with database.write() as session:
        render = get_render(session, render_id=render_id, user_id=user_id)
        if not render.status.is_final:
            raise Conflict("The render has not ended: cancel it first.")
        render_queries.stop_giving_out(session, render_id=render_id)
    delete_under(storage, render_prefix(render_id))
    with database.write() as session:
        render_queries.delete_render(session, render_id=render_id)
