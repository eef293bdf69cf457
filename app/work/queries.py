"""Changes of renders and segments after their claim: renewed, completed, failed, given back.

Each change is one compare-and-set on the attempt that the claim started, and has no effect when the lease is lost.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from typing import Any, Self, TypeAlias

from sqlalchemy import (
    JSON,
    ColumnElement,
    Float,
    Row,
    Select,
    String,
    and_,
    bindparam,
    case,
    exists,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from app.destinations import queries as destinations
from app.platform.database import ONE, ColumnReader, database_now, fetch_rows
from app.platform.lease import Lease, is_expired, release_statement, revoke
from app.platform.media.work_options import WORK_OPTIONS, WorkOptions
from app.platform.work_kinds import WorkKind, WorkQueue
from app.renders import webhook_events
from app.renders.statuses import RenderStatus, SegmentStatus
from app.renders.tables import Render, Segment
from app.usage import queries as usage_queries
from app.work.tables import MeasuredSpeed

# How many units of work are ready to be claimed, by queue.
ReadyUnits: TypeAlias = Counter[WorkQueue]

# Named one by one, so that an index is used: done segments are many.
UNFINISHED_SEGMENT = tuple(status for status in SegmentStatus if status is not SegmentStatus.DONE)

_OtherRender = aliased(Render)

# Built once: every completion runs it.
_COMPLETE_SEGMENT = release_statement(
    Segment,
    status=SegmentStatus.DONE,
    storage_key=bindparam("stored_as", type_=String),
    precision=bindparam("computed_in", type_=String),
    crf=bindparam("encoded_at", type_=Float),
    vmaf=bindparam("measured_as", type_=Float),
    filtered_pairs=bindparam("filtered_as", type_=JSON(none_as_null=True)),
    frames_done=Segment.frames,
    worker=Segment.worker,  # stays on record
)

BACK_TO_WAITING: Mapping[str, Any] = {"status": SegmentStatus.WAITING, "frames_done": 0}


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Identifies one attempt at one unit of work, held by one worker."""

    kind: WorkKind
    render_id: str
    segment_id: str | None
    attempt: int

    @property
    def lease(self) -> Lease:
        """The id of the segment for `upscale`, otherwise of the render."""
        if self.segment_id is not None:
            return Lease(Segment, self.segment_id, self.attempt)
        return Lease(Render, self.render_id, self.attempt)


@dataclass(frozen=True, kw_only=True)
class SegmentJob:
    """One segment: its position in the render, its plan, and once it is done the storage key of its file, in which
    precision it was computed, if its worker told, and what the search for its quality found, if there was one."""

    position: int
    plan: str
    storage_key: str | None
    precision: str | None = None
    crf: float | None = None
    vmaf: float | None = None
    filtered_pairs: Sequence[Sequence[float | None]] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Job(Claim, WorkOptions):
    """A claimed unit of work with everything that its worker reads of it.

    Equal to a job with the same claim. `plan` is the render's, None until it is prepared; `precision` is the
    render's, None until the first worker upscales it. `segments` is the
    claimed one for `upscale`, all in the order of the video for `finish`, and empty for `prepare`.
    `request_id` and `trace_parent` are those of the request that created the render. `opened` is the work
    that this claim made claimable.
    """

    request_id: str | None
    file_id: str
    input_key: str
    plan: str | None
    precision: str | None = None
    segments: Sequence[SegmentJob] = ()
    opened: ReadyUnits = field(default_factory=Counter)
    trace_parent: str | None = None

    @classmethod
    def of(cls, render: Render | Row[*tuple[Any, ...]], *, input_key: str, **claimed: Any) -> Self:
        """`render` is its row, or has at least the JOB_COLUMNS of it; `claimed` are the other fields."""
        columns = {column.key: getattr(render, column.key) for column in JOB_COLUMNS}
        return cls(input_key=input_key, **columns, **claimed)


# Of a render's row, by the names of a job's fields.
JOB_COLUMNS = tuple(
    getattr(Render, name)
    for name in ("request_id", "trace_parent", "file_id", "plan", "precision", *WORK_OPTIONS)
)


class AttemptOutcome(StrEnum):
    """Why an attempt ended without a result, by the column that counts it."""

    FAILURE = "failures"
    """The work itself failed."""
    EXPIRY = "expiries"
    """Its lease ran out: the worker was killed, cut off, or killed by the work. Or ffmpeg was killed, beside others."""
    OUTAGE = "outages"
    """Something that the work needs was unavailable."""


def renew(session: Session, claim: Claim, *, lease_seconds: float, frames_done: int) -> bool:
    """Extend the lease and report progress. False when the lease is lost."""
    values = {"frames_done": frames_done} if claim.kind is WorkKind.UPSCALE else {}
    return claim.lease.renew(session, seconds=lease_seconds, **values)


def all_warnings(session: Session, claim: Claim, warnings: Iterable[str]) -> list[str]:
    """The render's existing warnings, such as those about its request, and the new ones: each once."""
    stored = session.scalars(select(Render.warnings).where(Render.id == claim.render_id)).one_or_none()
    return list(dict.fromkeys([*(stored or ()), *warnings]))


def agree_on_precision(session: Session, *, render_id: str, own: str) -> str:
    """Return the render's precision: `own`, unless another worker began to upscale it before."""
    unless_set = update(Render).where(Render.id == render_id, Render.precision.is_(None))
    session.execute(unless_set.values(precision=own).execution_options(synchronize_session=False))
    return session.scalars(select(Render.precision).where(Render.id == render_id)).one() or own


def complete_segment(
    session: Session,
    claim: Claim,
    *,
    storage_key: str,
    precision: str | None = None,
    crf: float | None = None,
    vmaf: float | None = None,
    filtered_pairs: Sequence[Sequence[float | None]] | None = None,
) -> bool:
    """Move the segment to `done`. `crf` and `vmaf` are what a search for its quality found, `filtered_pairs` what was
    measured of its filter. False: the lease is lost.

    This function and the next may be repeated by the same claim, if a commit succeeded without an answer.
    Locks no other row: segments of one render are completed side by side.
    """
    changed = claim.lease.release_by(
        session,
        _COMPLETE_SEGMENT,
        stored_as=storage_key,
        computed_in=precision,
        encoded_at=crf,
        measured_as=vmaf,
        filtered_as=filtered_pairs,
    )
    return changed or claim.lease.has_left(session, status=SegmentStatus.DONE)


def complete_render(session: Session, claim: Claim, *, values: dict[str, Any]) -> bool:
    """Move the render to `completed`. False when the lease is lost."""
    now = database_now()
    changed = claim.lease.release(
        session, status=RenderStatus.COMPLETED, completed_at=now, ended_at=now, **values
    )
    if changed:
        usage_queries.add_completed(session, render_id=claim.render_id)
        webhook_events.write_event(session, render_id=claim.render_id, status=RenderStatus.COMPLETED)
        destinations.begin(session, render_id=claim.render_id)
    return changed or claim.lease.has_left(session, status=RenderStatus.COMPLETED)


def charge(session: Session, claim: Claim, outcome: AttemptOutcome) -> int | None:
    """Count how this attempt ended. Returns the count; None when the lease is lost."""
    if claim.kind is WorkKind.UPSCALE:
        _lock_render(session, claim.render_id)
    return claim.lease.charge(session, outcome.value)


def note_outage(session: Session, claim: Claim) -> int:
    """Record when an attempt ended because of an outage. Returns how many in a row did so while other work of
    the same kind was done in between."""
    table: Any = claim.lease.table
    done_since = {
        WorkKind.PREPARE: exists().where(
            Segment.created_at > Render.postponed_at, Segment.render_id != Render.id
        ),
        WorkKind.UPSCALE: exists().where(MeasuredSpeed.measured_at > Segment.postponed_at),
        WorkKind.FINISH: exists(
            select(_OtherRender.id).where(_OtherRender.completed_at > Render.postponed_at).correlate(Render)
        ),
    }[claim.kind]
    lone = case((done_since, table.lone_outages + 1), else_=0)
    statement = (
        update(table)
        .where(table.id == claim.lease.row_id, table.attempt == claim.attempt)
        .values(lone_outages=lone, postponed_at=database_now())
        .returning(table.lone_outages)
    )
    count: int = session.scalars(statement.execution_options(synchronize_session=False)).one()
    return count


def give_back(session: Session, claim: Claim, *, rest_seconds: float | None = None) -> None:
    """Release the work for another attempt, in `rest_seconds` at the earliest. Does nothing when the lease is lost."""
    values: Mapping[str, Any] = {}
    if claim.kind is WorkKind.UPSCALE:
        _lock_render(session, claim.render_id)
        values = BACK_TO_WAITING
    claim.lease.release(session, rest_seconds=rest_seconds, **values)


def requeue(session: Session, *, render_id: str) -> RenderStatus:
    """Release all leases of an unfinished render, uncharged, for an attempt at once.

    The workers learn this from their next heartbeat. Returns the render's status; does not change one that has ended.
    """
    _lock_render(session, render_id)
    status: RenderStatus = session.scalars(select(Render.status).where(Render.id == render_id)).one()
    if not status.is_final:
        revoke(session, Render, Render.id == render_id)
        open_segments = Segment.status.in_((SegmentStatus.WAITING, SegmentStatus.RUNNING))
        revoke(session, Segment, Segment.render_id == render_id, open_segments, **BACK_TO_WAITING)
    return status


def expired_claims(session: Session) -> Sequence[Claim]:
    """Claims whose lease has expired. Their rows stay locked until the session ends: no late heartbeat renews
    them, and no other sweeper finds them.
    """
    late_segment = and_(Segment.status == SegmentStatus.RUNNING, is_expired(Segment))
    late_render = and_(
        Render.status.in_((RenderStatus.PENDING, RenderStatus.PROCESSING)),
        is_expired(Render),
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
        select(Render.id, is_being_prepared(), Render.attempt).where(late_render, Render.id.in_(locked))
    )
    return [
        *(
            Claim(kind=WorkKind.UPSCALE, segment_id=segment_id, render_id=render_id, attempt=attempt)
            for segment_id, render_id, attempt in segments
        ),
        *(
            Claim(
                kind=WorkKind.PREPARE if to_prepare else WorkKind.FINISH,
                segment_id=None,
                render_id=render_id,
                attempt=attempt,
            )
            for render_id, to_prepare, attempt in renders
        ),
    ]


def is_being_prepared() -> ColumnElement[bool]:
    """The render is or was leased to be prepared: it is `pending`, or the rest of its segments is not planned yet."""
    return or_(Render.status == RenderStatus.PENDING, Render.unplanned_frames.is_not(None))


def may_be_finished(reader: ColumnReader, *, render_id: str) -> bool:
    """Whether all of the render's segments are planned and done."""
    return bool(fetch_rows(reader, _may_be_finished(), {"of_render": render_id}))


@cache
def _may_be_finished() -> Select[int]:
    return select(literal(1)).where(
        Render.id == bindparam("of_render", type_=String),
        Render.unplanned_frames.is_(None),
        no_segment_is_left(Render.id),
    )


def no_segment_is_left(render_id: InstrumentedAttribute[str]) -> ColumnElement[bool]:
    """All segments of the render are done."""
    # Searches the first segment of each status, on an index because of the order. A search for any of them
    # may make PostgreSQL read the segments of all renders until it meets one.
    left = (
        select(literal(1))
        .where(Segment.render_id == render_id, Segment.status == status)
        .order_by(Segment.position)
        .limit(ONE)
        .correlate(Render)
        for status in UNFINISHED_SEGMENT
    )
    return and_(*(one.scalar_subquery().is_(None) for one in left))


def _lock_render(session: Session, render_id: str) -> None:
    """Lock the render's row until the session ends.

    A transaction that changes a segment and then reads the others, or the render, takes this lock first,
    always before the segment's own: so it misses no change that another transaction is about to commit, and
    no deadlock occurs.
    """
    session.execute(select(Render.id).where(Render.id == render_id).with_for_update())
