"""Heartbeats and results: every move of a render or segment is one compare-and-set.

A claim names the row and the attempt that the claim started. Whatever is reported later carries that attempt and
touches nothing when the row has moved on.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from typing import Any, TypeAlias, cast

from sqlalchemy import CursorResult, Update, and_, exists, select, update
from sqlalchemy.orm import Session

from app.platform.database import database_now
from app.platform.media.rates import Retime
from app.platform.work_kinds import WorkKind, WorkQueue
from app.renders import webhook_events
from app.renders.statuses import RenderStatus, SegmentStatus
from app.renders.tables import Render, Segment
from app.usage import queries as usage_queries

# How many units of work are ready to be claimed, by queue.
ReadyUnits: TypeAlias = Counter[WorkQueue]

# Everything but done, named so that an index finds them: done segments are many.
UNFINISHED_SEGMENT = tuple(status for status in SegmentStatus if status is not SegmentStatus.DONE)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Identifies one attempt at one unit of work, which one worker holds."""

    kind: WorkKind
    render_id: str
    segment_id: str | None
    attempt: int


@dataclass(frozen=True, kw_only=True)
class SegmentJob:
    """One segment: its position in the render, its plan, and the storage key of its file once it is done."""

    position: int
    plan: str
    storage_key: str | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Job(Claim):
    """A claimed unit of work with everything that its worker reads of it. Equal to a job with the same claim.

    `plan` is the render's, None until it is prepared. `segments` is the claimed one for `upscale`, all in the order of
    the video for `finish`, and empty for `prepare`. `request_id` is that of the request that created the render.
    `opened` is the work that became claimable through this claim.
    """

    request_id: str | None
    file_id: str
    input_key: str
    engine: str
    target_fps: Fraction | None
    retime: Retime
    measures_quality: bool
    plan: str | None
    segments: Sequence[SegmentJob] = ()
    opened: ReadyUnits = field(default_factory=Counter)


class Setback(StrEnum):
    """What ended an attempt, by the column that counts it."""

    FAILURE = "failures"
    """The work itself failed."""
    EXPIRY = "expiries"
    """Its worker was not heard of for a lease: killed, cut off, or killed by the work."""
    OUTAGE = "outages"
    """What the work needs was away."""


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
    """`pending` becomes `processing`, with its segments waiting.

    This and the next two may be asked again by the same claim, whose commit went through without an answer.
    """
    changed = _changed(
        session,
        _own_render(claim).values(
            status=RenderStatus.PROCESSING, failures=0, expiries=0, outages=0, **_released_render(), **values
        ),
    )
    if changed:
        session.add_all(segments)
        session.flush()
        webhook_events.write_event(session, render_id=claim.render_id, status=RenderStatus.PROCESSING)
    return changed or _render_is(session, claim, RenderStatus.PROCESSING)


def complete_segment(session: Session, claim: Claim, *, storage_key: str) -> bool:
    _lock_render(session, claim.render_id)
    changed = _changed(
        session,
        _own_segment(claim).values(
            status=SegmentStatus.DONE,
            storage_key=storage_key,
            frames_done=Segment.frames,
            lease_expires_at=None,
        ),
    )
    done_before = exists().where(
        Segment.id == claim.segment_id,
        Segment.attempt == claim.attempt,
        Segment.status == SegmentStatus.DONE,
    )
    return changed or bool(session.scalar(select(done_before)))


def complete_render(session: Session, claim: Claim, *, values: dict[str, Any]) -> bool:
    changed = _changed(
        session,
        _own_render(claim).values(
            status=RenderStatus.COMPLETED, ended_at=database_now(), **_released_render(), **values
        ),
    )
    if changed:
        usage_queries.add_completed(session, render_id=claim.render_id)
        webhook_events.write_event(session, render_id=claim.render_id, status=RenderStatus.COMPLETED)
    return changed or _render_is(session, claim, RenderStatus.COMPLETED)


def give_back(session: Session, claim: Claim, *, setback: Setback | None = None) -> int | None:
    """Put the work back for another attempt. Returns its count of such setbacks, None when it is not this claim's."""
    row: type[Render] | type[Segment] = Segment if claim.kind is WorkKind.UPSCALE else Render
    row_id = claim.segment_id if claim.kind is WorkKind.UPSCALE else claim.render_id
    counted = {} if setback is None else {setback.value: getattr(row, setback.value) + 1}
    if claim.kind is WorkKind.UPSCALE:
        _lock_render(session, claim.render_id)
        statement = _own_segment(claim).values(
            status=SegmentStatus.WAITING,
            frames_done=0,
            worker=None,
            lease_expires_at=None,
            **counted,
        )
    else:
        statement = _own_render(claim).values(**_released_render(), **counted)
    if not _changed(session, statement):
        return None
    if setback is None:
        return 0
    return session.scalar(select(getattr(row, setback.value)).where(row.id == row_id))


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
        webhook_events.write_event(session, render_id=render_id, status=RenderStatus.FAILED)
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


def all_segments_done(session: Session, *, render_id: str) -> bool:
    unfinished = exists().where(Segment.render_id == render_id, Segment.status.in_(UNFINISHED_SEGMENT))
    return not session.scalar(select(unfinished))


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


def _render_is(session: Session, claim: Claim, status: RenderStatus) -> bool:
    """Whether this claim, and none after it, has brought the render so far."""
    brought = exists().where(
        Render.id == claim.render_id, Render.attempt == claim.attempt, Render.status == status
    )
    return bool(session.scalar(select(brought)))


def _released_render() -> dict[str, Any]:
    return {"work_lease_expires_at": None, "worker": None, "retry_at": None}


def _changed(session: Session, statement: Update) -> bool:
    result = session.execute(statement.execution_options(synchronize_session=False))
    return cast(CursorResult[Any], result).rowcount == 1
