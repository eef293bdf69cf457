"""Taking work out of workers' hands, for those who run the server."""

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.platform.secrets import is_id
from app.renders.statuses import RenderStatus, SegmentStatus
from app.renders.tables import Render, Segment


def owner_of(session: Session, *, render_id: str) -> str | None:
    """Whose render it is; None when there is none."""
    if not is_id(render_id):
        return None
    return session.scalar(select(Render.user_id).where(Render.id == render_id))


def requeue(session: Session, *, render_id: str) -> RenderStatus:
    """What workers hold of an unfinished render goes back uncharged, and nothing of it rests any more.

    They learn so from their next heartbeat. Returns the render's status; one that has ended is left as it is.
    """
    # The render's row first, then its segments', as everybody does.
    query = select(Render.status).where(Render.id == render_id)
    status: RenderStatus = session.execute(query.with_for_update()).scalar_one()
    if status.is_final:
        return status
    session.execute(
        update(Render)
        .where(Render.id == render_id)
        .values(work_lease_expires_at=None, worker=None, retry_at=None)
        .execution_options(synchronize_session=False)
    )
    session.execute(
        update(Segment)
        .where(
            Segment.render_id == render_id,
            Segment.status.in_((SegmentStatus.WAITING, SegmentStatus.RUNNING)),
        )
        .values(
            status=SegmentStatus.WAITING, frames_done=0, worker=None, lease_expires_at=None, retry_at=None
        )
        .execution_options(synchronize_session=False)
    )
    return status
