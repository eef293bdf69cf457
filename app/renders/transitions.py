"""Changes of a render's status that a worker's progress does not make."""

from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from app.platform.database import Database, database_now
from app.platform.lease import revoke
from app.renders import webhook_events
from app.renders.statuses import RenderStatus, SegmentStatus
from app.renders.tables import Render, Segment


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
