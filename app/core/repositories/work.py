"""Claims, heartbeats and results: every move of a render or segment is one compare-and-set.

A claim names the row and the attempt that the claim started. Whatever is reported later carries that attempt and
touches nothing when the row has moved on.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

from sqlalchemy import ColumnElement, CursorResult, Update, and_, case, exists, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from app.core.database import database_now
from app.core.statuses import RenderStatus, SegmentStatus, WorkKind, WorkQueue
from app.core.tables import Render, Segment

# How many units of work are ready to be claimed, by queue.
ReadyUnits: TypeAlias = Counter[WorkQueue]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One unit of work in one worker's hands.

    `request_id` is that of the request that asked for the render. `opened` is what became ready by this claim: once
    few segments wait, a render to prepare.
    """

    kind: WorkKind
    render_id: str
    segment_id: str | None
    attempt: int
    request_id: str | None = None
    opened: ReadyUnits = field(default_factory=Counter, compare=False)


def claim_finish(session: Session, *, worker: str, lease_seconds: float) -> Claim | None:
    """The oldest render whose segments are all done and that nobody is finishing."""
    return _claim_render(
        session, _ready_to_finish(), kind=WorkKind.FINISH, worker=worker, lease_seconds=lease_seconds
    )


def claim_prepare(session: Session, *, worker: str, lease_seconds: float) -> Claim | None:
    """The oldest queued render, or one whose preparing was given back; none while too many segments wait.

    See `_few_segments_wait`: `queued` means waiting, yet no worker has to wait for a render to be prepared.
    """
    return _claim_render(
        session,
        and_(_ready_to_prepare(), _few_segments_wait()),
        kind=WorkKind.PREPARE,
        worker=worker,
        lease_seconds=lease_seconds,
    )


def claim_segment(session: Session, *, worker: str, lease_seconds: float) -> Claim | None:
    """The first waiting segment of the oldest render that has any."""
    candidate, owner = aliased(Segment), aliased(Render)
    chosen = (
        select(candidate.id)
        .join(owner, owner.id == candidate.render_id)
        .where(_ready_to_upscale(candidate), owner.status == RenderStatus.PROCESSING)
        .order_by(owner.created_at, owner.id, candidate.position)
        .limit(1)
        .with_for_update(skip_locked=True, of=candidate)
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
        .returning(Segment.id, Segment.render_id, Segment.attempt)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if row is None:
        return None
    segment_id, render_id, attempt = row
    return Claim(
        kind=WorkKind.UPSCALE,
        segment_id=segment_id,
        render_id=render_id,
        attempt=attempt,
        request_id=session.scalar(select(Render.request_id).where(Render.id == render_id)),
        opened=Counter({WorkKind.PREPARE.queue: 1} if _may_prepare(session) else {}),
    )


def renew(session: Session, claim: Claim, *, lease_seconds: float, frames_done: int) -> bool:
    """Renew the lease and report progress. False when the work is no longer this claim's."""
    expires_at = database_now(plus_seconds=lease_seconds)
    if claim.kind is WorkKind.UPSCALE:
        statement = _own_segment(claim).values(lease_expires_at=expires_at, frames_done=frames_done)
    else:
        statement = _own_render(claim).values(work_lease_expires_at=expires_at)
    return _changed(session, statement)


def store_plan(
    session: Session, claim: Claim, *, values: dict[str, Any], segments: Iterable[Segment]
) -> bool:
    """`pending` becomes `processing`, with its segments waiting."""
    changed = _changed(
        session,
        _own_render(claim).values(status=RenderStatus.PROCESSING, failures=0, **_released_render(), **values),
    )
    if changed:
        session.add_all(segments)
        session.flush()
    return changed


def complete_segment(session: Session, claim: Claim, *, storage_key: str) -> bool:
    _lock_render(session, claim.render_id)
    return _changed(
        session,
        _own_segment(claim).values(
            status=SegmentStatus.DONE,
            storage_key=storage_key,
            frames_done=Segment.frames,
            lease_expires_at=None,
        ),
    )


def complete_render(session: Session, claim: Claim, *, values: dict[str, Any]) -> bool:
    return _changed(
        session,
        _own_render(claim).values(
            status=RenderStatus.COMPLETED, ended_at=database_now(), **_released_render(), **values
        ),
    )


def give_back(session: Session, claim: Claim, *, charged: bool) -> int | None:
    """Put the work back for another attempt. Returns its count of failures, None when it is not this claim's."""
    charge = 1 if charged else 0
    if claim.kind is WorkKind.UPSCALE:
        _lock_render(session, claim.render_id)
        statement = _own_segment(claim).values(
            status=SegmentStatus.WAITING,
            failures=Segment.failures + charge,
            frames_done=0,
            worker=None,
            lease_expires_at=None,
        )
        count = select(Segment.failures).where(Segment.id == claim.segment_id)
    else:
        statement = _own_render(claim).values(failures=Render.failures + charge, **_released_render())
        count = select(Render.failures).where(Render.id == claim.render_id)
    return session.scalar(count) if _changed(session, statement) else None


def postpone(session: Session, claim: Claim, *, seconds: float) -> None:
    """Let work that was just given back rest before its next attempt."""
    retry_at = database_now(plus_seconds=seconds)
    row, row_id = (Segment, claim.segment_id) if claim.kind is WorkKind.UPSCALE else (Render, claim.render_id)
    session.execute(
        update(row)
        .where(row.id == row_id, row.attempt == claim.attempt)
        .values(retry_at=retry_at)
        .execution_options(synchronize_session=False)
    )


def fail_render(session: Session, *, render_id: str, error: str) -> bool:
    """End an unfinished render as failed; its unfinished segments with it. False when it had ended already."""
    changed = _changed(
        session,
        update(Render)
        .where(Render.id == render_id, Render.status.in_(RenderStatus.FAILED.predecessors))
        .values(status=RenderStatus.FAILED, error=error, ended_at=database_now(), **_released_render()),
    )
    if changed:
        session.execute(
            update(Segment)
            .where(Segment.render_id == render_id, Segment.status != SegmentStatus.DONE)
            .values(status=SegmentStatus.FAILED, lease_expires_at=None)
            .execution_options(synchronize_session=False)
        )
    return changed


def expired_claims(session: Session) -> Sequence[Claim]:
    """Claims whose lease ran out. Until the session ends no late heartbeat can renew them, nor another sweeper find
    them.
    """
    late_segment = and_(Segment.status == SegmentStatus.RUNNING, Segment.lease_expires_at < database_now())
    late_render = and_(
        Render.status.in_((RenderStatus.PENDING, RenderStatus.PROCESSING)),
        Render.work_lease_expires_at < database_now(),
    )
    suspects = select(Segment.render_id).where(late_segment).union(select(Render.id).where(late_render))
    locked = session.scalars(
        select(Render.id).where(Render.id.in_(suspects)).order_by(Render.id).with_for_update(skip_locked=True)
    ).all()
    segments = session.execute(
        select(Segment.id, Segment.render_id, Segment.attempt)
        .where(late_segment, Segment.render_id.in_(locked))
        .with_for_update(skip_locked=True)
    )
    renders = session.execute(
        select(Render.id, Render.status, Render.attempt).where(late_render, Render.id.in_(locked))
    )
    return [
        *(
            Claim(kind=WorkKind.UPSCALE, segment_id=segment_id, render_id=render_id, attempt=attempt)
            for segment_id, render_id, attempt in segments
        ),
        *(
            Claim(
                kind=WorkKind.PREPARE if status is RenderStatus.PENDING else WorkKind.FINISH,
                segment_id=None,
                render_id=render_id,
                attempt=attempt,
            )
            for render_id, status, attempt in renders
        ),
    ]


def ready_units(session: Session) -> ReadyUnits:
    """How many units of work free workers could claim now."""
    ready: ReadyUnits = Counter()
    ready[WorkKind.FINISH.queue] += _count(session, Render, _ready_to_finish())
    ready[WorkKind.UPSCALE.queue] += _count(session, Segment, _ready_to_upscale())
    ready[WorkKind.PREPARE.queue] += _count(session, Render, and_(_ready_to_prepare(), _few_segments_wait()))
    return +ready


def all_segments_done(session: Session, *, render_id: str) -> bool:
    unfinished = exists().where(Segment.render_id == render_id, Segment.status != SegmentStatus.DONE)
    return not session.scalar(select(unfinished))


def get_render(session: Session, *, render_id: str) -> Render:
    return session.get_one(Render, render_id)


def get_segment(session: Session, *, segment_id: str) -> Segment:
    return session.get_one(Segment, segment_id)


def segments_of(session: Session, *, render_id: str) -> Sequence[Segment]:
    """All of a render's segments, in the order of the video."""
    query = select(Segment).where(Segment.render_id == render_id).order_by(Segment.position)
    return session.scalars(query).all()


def _ready_to_prepare() -> ColumnElement[bool]:
    return and_(
        Render.status.in_((RenderStatus.QUEUED, RenderStatus.PENDING)),
        Render.work_lease_expires_at.is_(None),
        _pause_over(Render),
    )


def _ready_to_finish() -> ColumnElement[bool]:
    unfinished = exists().where(Segment.render_id == Render.id, Segment.status != SegmentStatus.DONE)
    return and_(
        Render.status == RenderStatus.PROCESSING,
        Render.work_lease_expires_at.is_(None),
        _pause_over(Render),
        ~unfinished,
    )


def _ready_to_upscale(segment: type[Segment] = Segment) -> ColumnElement[bool]:
    return and_(segment.status == SegmentStatus.WAITING, _pause_over(segment))


def _may_prepare(session: Session) -> bool:
    return bool(session.scalar(select(exists().where(_ready_to_prepare(), _few_segments_wait()))))


def _few_segments_wait() -> ColumnElement[bool]:
    """No segment waits, or fewer wait than run.

    With one worker that is: none waits. With many, the next render is prepared while the last segments of the one
    before are at work. Of the waiting segments it looks at no more than run, however many there are.
    """
    excess = select(case((func.count() > 1, func.count() - 1), else_=0)).where(
        Segment.status == SegmentStatus.RUNNING
    )
    first_too_many = select(Segment.id).where(_ready_to_upscale()).offset(excess.scalar_subquery()).limit(1)
    return ~first_too_many.correlate(None).exists()


def _pause_over(row: type[Render] | type[Segment]) -> ColumnElement[bool]:
    return or_(row.retry_at.is_(None), row.retry_at <= database_now())


def _claim_render(
    session: Session, ready: ColumnElement[bool], *, kind: WorkKind, worker: str, lease_seconds: float
) -> Claim | None:
    chosen = (
        select(Render.id)
        .where(ready)
        .order_by(Render.created_at, Render.id)
        .limit(1)
        .with_for_update(skip_locked=True, of=Render)
        .correlate(None)
        .scalar_subquery()
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


def _lock_render(session: Session, render_id: str) -> None:
    """Hold the render's row until the session ends.

    Who changes a segment and then looks at the others, or at the render, takes this lock first, always before the
    segment's own: so nobody misses what another transaction is just about to commit, and no two wait for each other.
    """
    session.execute(select(Render.id).where(Render.id == render_id).with_for_update())


def _own_segment(claim: Claim) -> Update:
    return update(Segment).where(
        Segment.id == claim.segment_id,
        Segment.attempt == claim.attempt,
        Segment.status == SegmentStatus.RUNNING,
    )


def _own_render(claim: Claim) -> Update:
    status = RenderStatus.PENDING if claim.kind is WorkKind.PREPARE else RenderStatus.PROCESSING
    return update(Render).where(
        Render.id == claim.render_id,
        Render.attempt == claim.attempt,
        Render.status == status,
        Render.work_lease_expires_at.is_not(None),
    )


def _released_render() -> dict[str, Any]:
    return {"work_lease_expires_at": None, "worker": None, "retry_at": None}


def _changed(session: Session, statement: Update) -> bool:
    result = session.execute(statement.execution_options(synchronize_session=False))
    return cast(CursorResult[Any], result).rowcount == 1


def _count(session: Session, table: type[Render] | type[Segment], condition: ColumnElement[bool]) -> int:
    return session.scalar(select(func.count()).select_from(table).where(condition)) or 0
