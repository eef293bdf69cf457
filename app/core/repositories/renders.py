"""Renders as users see them."""

from dataclasses import dataclass

from sqlalchemy import and_, case, func, or_, select
from sqlalchemy.orm import Session, joinedload

from app.core.secrets import is_id
from app.core.statuses import RenderStatus
from app.core.tables import Render, Segment, User


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
    """The place of a queued render in the order in which queued ones are prepared; 1 is next.

    Users take turns: before a user's third render come up to two of everybody, and one of those whose turn is earlier.
    It grows only when somebody else's turn comes first, or a render of the same user has a higher priority.
    """
    before = or_(
        Render.priority > render.priority,
        and_(
            Render.priority == render.priority,
            or_(
                Render.created_at < render.created_at,
                and_(Render.created_at == render.created_at, Render.id < render.id),
            ),
        ),
    )
    is_queued = Render.status == RenderStatus.QUEUED
    own = select(func.count()).where(Render.user_id == render.user_id, is_queued, before)
    rounds = session.scalar(own) or 0
    turn = select(User.prepared_at).where(User.id == render.user_id).scalar_subquery()
    is_earlier = or_(
        and_(User.prepared_at.is_(None), or_(turn.is_not(None), User.id < render.user_id)),
        User.prepared_at < turn,
        and_(User.prepared_at == turn, User.id < render.user_id),
    )
    queued = (
        select(Render.user_id, func.count().label("count"))
        .where(is_queued)
        .group_by(Render.user_id)
        .subquery()
    )
    ahead = case((queued.c.count < rounds, queued.c.count), else_=rounds) + case(
        (and_(queued.c.count > rounds, User.id != render.user_id, is_earlier), 1), else_=0
    )
    query = select(func.sum(ahead)).select_from(queued).join(User, User.id == queued.c.user_id)
    return 1 + int(session.scalar(query) or 0)


def frames_done(session: Session, *, render_id: str) -> FramesDone:
    query = select(
        func.coalesce(func.sum(Segment.frames_done), 0), func.coalesce(func.sum(Segment.frames), 0)
    ).where(Segment.render_id == render_id)
    done, total = session.execute(query).one()
    return FramesDone(done=int(done), total=int(total))
