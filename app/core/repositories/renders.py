"""Renders as users see them."""

from dataclasses import dataclass

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session, joinedload

from app.core.secrets import is_id
from app.core.statuses import RenderStatus
from app.core.tables import Render, Segment


@dataclass(frozen=True, kw_only=True)
class FramesDone:
    """How many source frames of a render have been upscaled, of how many. Both 0 before it is prepared."""

    done: int
    total: int


def find_render(session: Session, *, render_id: str, user_id: str) -> Render | None:
    """The user's own render of that id, with its file; another user's is not found."""
    if not is_id(render_id):
        return None
    query = (
        select(Render)
        .options(joinedload(Render.file))
        .where(Render.id == render_id, Render.user_id == user_id)
    )
    return session.scalar(query)


def queue_position(session: Session, *, render: Render) -> int:
    """The place of a queued render among all queued ones; 1 is next."""
    ahead = select(func.count()).where(
        Render.status == RenderStatus.QUEUED,
        or_(
            Render.created_at < render.created_at,
            and_(Render.created_at == render.created_at, Render.id < render.id),
        ),
    )
    return 1 + (session.scalar(ahead) or 0)


def frames_done(session: Session, *, render_id: str) -> FramesDone:
    query = select(
        func.coalesce(func.sum(Segment.frames_done), 0), func.coalesce(func.sum(Segment.frames), 0)
    ).where(Segment.render_id == render_id)
    done, total = session.execute(query).one()
    return FramesDone(done=int(done), total=int(total))
