"""Claims: the unit of work that is next becomes one worker's.

Each is one compare-and-set on the unit's row, after the turn of its user was taken (`turns`). Within a user the render
of the highest priority comes first, then the oldest.
"""

from collections import Counter
from typing import Any

from sqlalchemy import ColumnElement, ScalarSelect, Select, and_, or_, select, update
from sqlalchemy.orm import Session

from app.core.database import database_now
from app.core.repositories import readiness, turns
from app.core.repositories.turns import Turn
from app.core.repositories.work import Claim
from app.core.statuses import RenderStatus, SegmentStatus, WorkKind
from app.core.tables import Render, Segment, User

# Work may vanish between the choice of its user and its claim, when it is canceled just then.
MOST_TRIES = 3


def claim_finish(session: Session, *, worker: str, lease_seconds: float) -> Claim | None:
    """The oldest render whose segments are all done and that nobody is finishing. No turn or cap holds it back."""
    oldest = select(Render.id).where(readiness.ready_to_finish()).order_by(Render.created_at, Render.id)
    return _claim_render(session, oldest, kind=WorkKind.FINISH, worker=worker, lease_seconds=lease_seconds)


def claim_prepare(session: Session, *, worker: str, lease_seconds: float) -> Claim | None:
    """A queued render of the user whose turn it is, or one whose preparing was given back.

    Of users who have more than a few segments waiting none is prepared (`readiness.few_segments_wait`): `queued` means
    waiting, yet no worker has to wait for a render to be prepared.
    """
    return _claim_prepare(session, readiness.user_may_prepare(), worker=worker, lease_seconds=lease_seconds)


def claim_urgent_prepare(
    session: Session, *, worker: str, lease_seconds: float, cap: int | None
) -> Claim | None:
    """For a worker that also upscales, and would never come to prepare anything while segments wait.

    A render of a user who has no segment waiting, and whose last render was prepared before the user had a turn whose
    segment is next.
    """
    following = turns.first_in_line(session, Turn.SEGMENTS, has_work=readiness.user_may_upscale(cap=cap))
    if following is None or following[1] is None:
        return None
    is_urgent = and_(
        readiness.user_may_prepare(),
        ~readiness.segments_wait(User.id),
        or_(User.prepared_at.is_(None), User.prepared_at < following[1]),
    )
    return _claim_prepare(session, is_urgent, worker=worker, lease_seconds=lease_seconds)


def claim_segment(
    session: Session, *, worker: str, lease_seconds: float, cap: int | None = None
) -> Claim | None:
    """The first waiting segment of the user whose turn it is.

    `cap` is how many segments of one user may run, for users who have no cap of their own.
    """
    for _try in range(MOST_TRIES):
        user_id = turns.take_turn(
            session,
            Turn.SEGMENTS,
            has_work=readiness.user_may_upscale(cap=cap),
            is_capped=readiness.is_capped(cap=cap),
        )
        if user_id is None:
            return None
        claim = _claim_segment_of(session, user_id, worker=worker, lease_seconds=lease_seconds, cap=cap)
        if claim is not None:
            return claim
    return None


def _claim_segment_of(
    session: Session, user_id: str, *, worker: str, lease_seconds: float, cap: int | None
) -> Claim | None:
    taken: list[str] = []
    while render := session.execute(_next_render(user_id, cap=cap, but=taken)).one_or_none():
        render_id, request_id = render
        chosen = (
            select(Segment.id)
            .where(Segment.render_id == render_id, readiness.ready_to_upscale())
            .order_by(Segment.position)
            .limit(1)
            .with_for_update(skip_locked=True)
            .correlate(None)
            .scalar_subquery()
        )
        row = session.execute(
            update(Segment)
            .where(Segment.id == chosen)
            .values(
                status=SegmentStatus.RUNNING,
                attempt=Segment.attempt + 1,
                worker=worker,
                frames_done=0,
                lease_expires_at=database_now(plus_seconds=lease_seconds),
                retry_at=None,
            )
            .returning(Segment.id, Segment.attempt)
            .execution_options(synchronize_session=False)
        ).one_or_none()
        if row is not None:
            segment_id, attempt = row
            return Claim(
                kind=WorkKind.UPSCALE,
                segment_id=segment_id,
                render_id=render_id,
                attempt=attempt,
                request_id=request_id,
                opened=Counter({WorkKind.PREPARE.queue: 1} if _may_prepare(session, user_id) else {}),
            )
        # Other workers have all of its waiting segments in their hands, and will have committed that soon.
        taken.append(render_id)
    return None


def _next_render(user_id: str, *, cap: int | None, but: list[str]) -> Select[str, str | None]:
    """The first of the user's renders that has a segment to claim. It looks at the cap again: the user's row is locked
    only now."""
    return (
        select(Render.id, Render.request_id)
        .join(User, User.id == Render.user_id)
        .where(
            Render.user_id == user_id,
            Render.status == RenderStatus.PROCESSING,
            Render.id.not_in(but),
            readiness.render_waits(),
            readiness.below_cap(cap=cap),
        )
        .order_by(*_within_user())
        .limit(1)
    )


def _may_prepare(session: Session, user_id: str) -> bool:
    query = select(Render.id).where(
        Render.user_id == user_id, readiness.ready_to_prepare(), readiness.few_segments_wait(user_id)
    )
    return session.scalar(query.limit(1)) is not None


def _claim_prepare(
    session: Session, has_work: ColumnElement[bool], *, worker: str, lease_seconds: float
) -> Claim | None:
    for _try in range(MOST_TRIES):
        user_id = turns.take_turn(session, Turn.PREPARE, has_work=has_work)
        if user_id is None:
            return None
        first = (
            select(Render.id)
            .where(Render.user_id == user_id, readiness.ready_to_prepare())
            .order_by(*_within_user())
        )
        claim = _claim_render(
            session, first, kind=WorkKind.PREPARE, worker=worker, lease_seconds=lease_seconds
        )
        if claim is not None:
            return claim
    return None


def _within_user() -> tuple[Any, ...]:
    return Render.priority.desc(), Render.created_at, Render.id


def _claim_render(
    session: Session, candidates: Select[str], *, kind: WorkKind, worker: str, lease_seconds: float
) -> Claim | None:
    chosen: ScalarSelect[str] = (
        candidates.limit(1).with_for_update(skip_locked=True, of=Render).correlate(None).scalar_subquery()
    )
    status = RenderStatus.PENDING if kind is WorkKind.PREPARE else RenderStatus.PROCESSING
    row = session.execute(
        update(Render)
        .where(Render.id == chosen)
        .values(
            status=status,
            attempt=Render.attempt + 1,
            worker=worker,
            work_lease_expires_at=database_now(plus_seconds=lease_seconds),
            retry_at=None,
        )
        .returning(Render.id, Render.attempt, Render.request_id)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if row is None:
        return None
    render_id, attempt, request_id = row
    return Claim(kind=kind, render_id=render_id, segment_id=None, attempt=attempt, request_id=request_id)
