"""Claims: lease the next unit of work to one worker.

Each claim is one compare-and-set on the unit's row, after its user was chosen (`fair_scheduling`). Within a user the
render of the highest priority comes first, then the oldest. Statements are built once and take parameters: building
them anew took more of a worker's time than all else in a claim.
"""

from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import Any

from sqlalchemy import Float, Select, String, and_, bindparam, or_, select
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningUpdate

from app.accounts.tables import User
from app.files.tables import File
from app.platform.database import UtcDateTime
from app.platform.lease import claim_first
from app.platform.media.rates import Retime
from app.platform.work_kinds import WorkKind
from app.renders.statuses import RenderStatus, SegmentStatus
from app.renders.tables import Render, Segment
from app.work import claimable, fair_scheduling
from app.work.fair_scheduling import Rotation, RoundRobin
from app.work.queries import Job, SegmentJob

# The work of the chosen user may be canceled before it is claimed.
MOST_TRIES = 3

# Parameters of the statements below.
OF_USER = bindparam("of_user", type_=String)
OF_RENDER = bindparam("of_render", type_=String)
BY_WORKER = bindparam("by_worker", type_=String)
FOR_SECONDS = bindparam("for_seconds", type_=Float)
BUT = bindparam("but", type_=String, expanding=True)
EARLIER_THAN = bindparam("earlier_than", type_=UtcDateTime)

SEGMENT_COLUMNS = (Segment.position, Segment.plan, Segment.storage_key)
WITHIN_USER = (Render.priority.desc(), Render.created_at, Render.id)


def claim_finish(session: Session, *, worker: str, lease_seconds: float) -> Job | None:
    """The oldest render whose segments are all done and that no worker is finishing. Users' rotation and caps do not
    apply."""
    return _claim_render(session, WorkKind.FINISH, by_worker=worker, for_seconds=lease_seconds)


def claim_prepare(
    session: Session, *, worker: str, lease_seconds: float, render_cap: int | None = None
) -> Job | None:
    """A queued render of the next user, or one whose preparation was given back.

    `render_cap` is how many renders of one user may be at work, for users who have no cap of their own.

    No render is prepared of users who have more than a few segments waiting (`claimable.few_segments_wait`): `queued`
    means waiting, yet no worker has to wait for a render to be prepared.
    """
    return _claim_prepare(
        session, _users_to_prepare(render_cap), {}, render_cap, worker=worker, lease_seconds=lease_seconds
    )


def claim_urgent_prepare(
    session: Session, *, worker: str, lease_seconds: float, cap: int | None, render_cap: int | None = None
) -> Job | None:
    """For a worker that also upscales, and would never prepare anything while segments wait.

    A render of a user who has no segment waiting, and whose last render was prepared before the user was last served
    whose segment is next.
    """
    following = fair_scheduling.peek_next_user(session, _users_to_upscale(cap))
    if following is None or following[1] is None:
        return None
    parameters = {EARLIER_THAN.key: following[1]}
    return _claim_prepare(
        session,
        _users_to_prepare_first(render_cap),
        parameters,
        render_cap,
        worker=worker,
        lease_seconds=lease_seconds,
    )


def claim_segment(
    session: Session, *, worker: str, lease_seconds: float, cap: int | None = None
) -> Job | None:
    """The first waiting segment of the next user.

    `cap` is how many segments of one user may run, for users who have no cap of their own.
    """
    for _try in range(MOST_TRIES):
        user_id = fair_scheduling.serve_next_user(session, _users_to_upscale(cap))
        if user_id is None:
            return None
        claim = _claim_segment_of(session, user_id, worker=worker, lease_seconds=lease_seconds, cap=cap)
        if claim is not None:
            return claim
    return None


@cache
def _users_to_upscale(cap: int | None) -> RoundRobin:
    return RoundRobin(
        Rotation.SEGMENTS,
        has_work=claimable.user_may_upscale(cap=cap),
        is_capped=claimable.is_capped(cap=cap),
    )


@cache
def _users_to_prepare(cap: int | None) -> RoundRobin:
    return RoundRobin(
        Rotation.PREPARE,
        has_work=claimable.user_may_prepare(cap=cap),
        is_capped=claimable.is_render_capped(cap=cap),
    )


@cache
def _users_to_prepare_first(cap: int | None) -> RoundRobin:
    is_urgent = and_(
        claimable.user_may_prepare(cap=cap),
        ~claimable.segments_wait(User.id),
        or_(User.prepared_at.is_(None), User.prepared_at < EARLIER_THAN),
    )
    return RoundRobin(Rotation.PREPARE, has_work=is_urgent, is_capped=claimable.is_render_capped(cap=cap))


def _claim_segment_of(
    session: Session, user_id: str, *, worker: str, lease_seconds: float, cap: int | None
) -> Job | None:
    taken: list[str] = []
    while render_id := session.scalar(_next_render(cap), {OF_USER.key: user_id, BUT.key: taken}):
        row = session.execute(
            _segment_claim(),
            {OF_RENDER.key: render_id, BY_WORKER.key: worker, FOR_SECONDS.key: lease_seconds},
        ).one_or_none()
        if row is not None:
            segment_id, attempt, *segment = row
            may_prepare = session.scalar(_next_prepare(), {OF_USER.key: user_id}) is not None
            return _job(
                session,
                kind=WorkKind.UPSCALE,
                render_id=render_id,
                segment_id=segment_id,
                attempt=attempt,
                segments=[_segment_job(*segment)],
                opened=Counter({WorkKind.PREPARE.queue: 1} if may_prepare else {}),
            )
        # Other workers hold locks on all of its waiting segments, and will commit their claims soon.
        taken.append(render_id)
    return None


@cache
def _next_render(cap: int | None) -> Select[str]:
    """The first of the user's renders that has a segment to claim. Checks the cap again: the user's row is locked only
    now."""
    return (
        select(Render.id)
        .join(User, User.id == Render.user_id)
        .where(
            Render.user_id == OF_USER,
            Render.status == RenderStatus.PROCESSING,
            Render.id.not_in(BUT),
            claimable.render_waits(),
            claimable.below_cap(cap=cap),
        )
        .order_by(*WITHIN_USER)
        .limit(1)
    )


@cache
def _segment_claim() -> ReturningUpdate[*tuple[Any, ...]]:
    """Leases the render's first waiting segment."""
    waiting = (
        select(Segment.id)
        .where(Segment.render_id == OF_RENDER, claimable.ready_to_upscale())
        .order_by(Segment.position)
    )
    claim = claim_first(
        Segment,
        waiting,
        seconds=FOR_SECONDS,
        worker=BY_WORKER,
        status=SegmentStatus.RUNNING,
        frames_done=0,
    )
    return claim.returning(Segment.id, Segment.attempt, *SEGMENT_COLUMNS)


@cache
def _next_prepare() -> Select[str]:
    """A render of the user that could be prepared now."""
    may = and_(claimable.ready_to_prepare(), claimable.few_segments_wait(OF_USER))
    return select(Render.id).where(Render.user_id == OF_USER, may).limit(1)


def _claim_prepare(
    session: Session,
    users: RoundRobin,
    parameters: Mapping[str, Any],
    cap: int | None,
    *,
    worker: str,
    lease_seconds: float,
) -> Job | None:
    for _try in range(MOST_TRIES):
        user_id = fair_scheduling.serve_next_user(session, users, **parameters)
        if user_id is None:
            return None
        claim = _claim_render(
            session, WorkKind.PREPARE, cap, of_user=user_id, by_worker=worker, for_seconds=lease_seconds
        )
        if claim is not None:
            return claim
    return None


def _claim_render(
    session: Session, kind: WorkKind, cap: int | None = None, **parameters: object
) -> Job | None:
    row = session.execute(_render_claim(kind, cap), parameters).one_or_none()
    if row is None:
        return None
    render_id, attempt = row
    segments = (
        session.execute(_segments_to_join(), {OF_RENDER.key: render_id}) if kind is WorkKind.FINISH else ()
    )
    return _job(
        session,
        kind=kind,
        render_id=render_id,
        segment_id=None,
        attempt=attempt,
        segments=[_segment_job(*segment) for segment in segments],
    )


@cache
def _render_claim(kind: WorkKind, cap: int | None) -> ReturningUpdate[str, int]:
    """Leases the first render that is ready to be finished, or the user's first to be prepared. Checks the cap on
    renders again: the user's row is locked only now."""
    if kind is WorkKind.FINISH:
        candidates = select(Render.id).where(claimable.ready_to_finish())
        candidates = candidates.order_by(Render.created_at, Render.id)
    else:
        candidates = select(Render.id).join(User, User.id == Render.user_id)
        candidates = candidates.where(
            Render.user_id == OF_USER, claimable.ready_to_prepare(), claimable.below_render_cap(cap=cap)
        )
        candidates = candidates.order_by(*WITHIN_USER)
    claim = claim_first(
        Render,
        candidates,
        seconds=FOR_SECONDS,
        worker=BY_WORKER,
        status=RenderStatus.PENDING if kind is WorkKind.PREPARE else RenderStatus.PROCESSING,
    )
    return claim.returning(Render.id, Render.attempt)


def _job(session: Session, *, render_id: str, **claimed: Any) -> Job:
    render = session.execute(_render_to_work_on(), {OF_RENDER.key: render_id}).one()
    return Job(render_id=render_id, **claimed, **{**render._mapping, "retime": Retime(render.retime)})


def _segment_job(position: int, plan: str, storage_key: str | None) -> SegmentJob:
    return SegmentJob(position=position, plan=plan, storage_key=storage_key)


@cache
def _render_to_work_on() -> Select[*tuple[Any, ...]]:
    """Selects a job's fields of its render, by their names in `Job`."""
    return (
        select(
            Render.request_id,
            Render.file_id,
            File.storage_key.label("input_key"),
            Render.engine,
            Render.target_fps,
            Render.retime,
            Render.measures_quality,
            Render.plan,
        )
        .join(File, File.id == Render.file_id)
        .where(Render.id == OF_RENDER)
    )


@cache
def _segments_to_join() -> Select[*tuple[Any, ...]]:
    return select(*SEGMENT_COLUMNS).where(Segment.render_id == OF_RENDER).order_by(Segment.position)
