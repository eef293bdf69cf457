"""Claims: lease the next unit of work to one worker.

Each claim is one compare-and-set on the unit's row, after its user was chosen (`fair_scheduling`). Within a
user the render of the highest priority comes first, then the oldest. Statements are built once and take
parameters: building them again took more of a worker's time than the rest of a claim.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from datetime import datetime
from functools import cache
from typing import Any, TypeAlias

from sqlalchemy import Float, Select, String, and_, bindparam, false, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session
from sqlalchemy.sql.dml import ReturningUpdate

from app.accounts.tables import User
from app.files.tables import File
from app.platform.database import ONE, UtcDateTime
from app.platform.lease import claim_first
from app.platform.work_kinds import WorkKind
from app.renders.statuses import RenderStatus, SegmentStatus
from app.renders.tables import Render, Segment
from app.renders.transitions import taken_from_queue
from app.work import claimable, fair_scheduling
from app.work.failed_attempts import BY_WORKER, HEARD_SINCE
from app.work.fair_scheduling import OF_USER, Rotation, RoundRobin, Turn
from app.work.queries import JOB_COLUMNS, Job, SegmentJob
from app.work.worker_queries import SILENT_LEASES

# The work of the chosen user may be canceled before it is claimed.
MOST_TRIES = 3

# Parameters of the statements below.
OF_RENDER = bindparam("of_render", type_=String)
FOR_SECONDS = bindparam("for_seconds", type_=Float)
BUT = bindparam("but", type_=String, expanding=True)
EARLIER_THAN = bindparam("earlier_than", type_=UtcDateTime)

# Claims a unit if its user was last served earlier than at this time.
EarlierClaim: TypeAlias = Callable[[datetime | None], Job | None]

IS_TO_PREPARE = "is_to_prepare"
SEGMENT_COLUMNS: tuple[InstrumentedAttribute[Any], ...] = (
    Segment.position,
    Segment.plan,
    Segment.storage_key,
    Segment.precision,
    Segment.crf,
    Segment.vmaf,
    Segment.filtered_pairs,
)
WITHIN_USER = (Render.priority.desc(), Render.created_at, Render.id)


def claim_finish(
    session: Session, *, worker: str, lease_seconds: float, first: EarlierClaim | None = None
) -> Job | None:
    """The next user's first render whose segments are all done and that no worker is finishing. Caps do not apply.

    `first` is tried before, with the time at which that user was last served.
    """
    by = _by(worker, lease_seconds)
    users = _users_to_finish()
    # There is rarely one, and on PostgreSQL a turn takes another connection.
    following = fair_scheduling.peek_next_user(session, users, **by)
    if following is None:
        return None
    earlier = first(following[1]) if first is not None else None
    return earlier or _claim_in_turn(
        session, users, by, lambda turn: _claim_render_of(session, WorkKind.FINISH, turn, lease_seconds, by)
    )


def claim_prepare(
    session: Session, *, worker: str, lease_seconds: float, render_cap: int | None = None
) -> Job | None:
    """A queued render of the next user, or one whose preparation was given back.

    `render_cap` is how many renders of one user may run, for users without their own cap. Renders of users
    with more than a few waiting segments are not prepared (`claimable.few_segments_wait`): `queued` means
    waiting, yet no worker has to wait for a render to be prepared.
    """
    by = _by(worker, lease_seconds)
    return _claim_prepare(session, _users_to_prepare(render_cap), by, render_cap, lease_seconds)


def claim_urgent_prepare(
    session: Session,
    last_served: datetime | None,
    *,
    worker: str,
    lease_seconds: float,
    render_cap: int | None = None,
) -> Job | None:
    """A render of a user who has no segment waiting, and whose last render was prepared before `last_served`.

    For a worker that would otherwise prepare nothing while there are segments or renders to finish: `last_served` is
    when the user of the next one was.
    """
    if last_served is None:
        return None
    parameters = {EARLIER_THAN.key: last_served, **_by(worker, lease_seconds)}
    return _claim_prepare(session, _users_to_prepare_first(render_cap), parameters, render_cap, lease_seconds)


def claim_segment(
    session: Session,
    *,
    worker: str,
    lease_seconds: float,
    cap: int | None = None,
    engines: Collection[str] = (),
    lacked_codecs: Collection[str] = (),
    measures_vmaf: bool = True,
    left_to_others: Collection[tuple[str, str]] = (),
    first: EarlierClaim | None = None,
) -> Job | None:
    """The first waiting segment of the next user.

    `cap` is how many segments of one user may run, for users without their own cap. `engines` are those with
    which the worker upscales; empty for all. `lacked_codecs` are those that it cannot encode, `measures_vmaf` is
    whether it can search for a quality, `left_to_others` are the engines and precisions of renders that it leaves.
    `first` is tried before, with the time at which that user was last served.
    """
    by = _by(worker, lease_seconds, engines, lacked_codecs, measures_vmaf, left_to_others)
    lease = {FOR_SECONDS.key: lease_seconds, **by}
    users = _users_to_upscale(cap)
    if first is not None:
        following = fair_scheduling.peek_next_user(session, users, **by)
        earlier = first(following[1]) if following is not None else None
        if earlier is not None or following is None:
            return earlier
    return _claim_in_turn(session, users, by, lambda turn: _claim_segment_of(session, turn, cap, lease))


def _by(
    worker: str,
    lease_seconds: float,
    engines: Collection[str] = (),
    lacked_codecs: Collection[str] = (),
    measures_vmaf: bool = True,
    left_to_others: Collection[tuple[str, str]] = (),
) -> dict[str, Any]:
    """The parameters of the conditions of this worker's claim (see `claimable` and `failed_attempts`)."""
    return {
        BY_WORKER.key: worker,
        HEARD_SINCE.key: -SILENT_LEASES * lease_seconds,
        claimable.OF_ENGINES.key: "".join(f'"{engine}"' for engine in engines),
        claimable.LACKED_CODECS.key: "".join(f'"{codec}"' for codec in lacked_codecs),
        claimable.MEASURES_VMAF.key: measures_vmaf,
        claimable.LEFT_TO_OTHERS.key: "".join(
            f'"{engine}/{precision}"' for engine, precision in left_to_others
        ),
    }


def _claim_in_turn(
    session: Session,
    users: RoundRobin,
    parameters: Mapping[str, Any],
    claim: Callable[[Turn], Job | None],
) -> Job | None:
    """Returns what `claim` claims for the next user.

    Locks the row of a capped user until the session ends, so that the next claim for them counts this one.
    """
    for _try in range(MOST_TRIES):
        turn = fair_scheduling.take_turn(session, users, **parameters)
        if turn is None:
            return None
        # The savepoint's end releases the lock: a worker that waits for one user locks no other.
        with session.begin_nested() if turn.is_capped else nullcontext() as held:
            if turn.is_capped:
                session.execute(_user_lock(), {OF_USER.key: turn.user_id})
            job = claim(turn)
            if job is None and held is not None:
                held.rollback()
        if job is not None:
            return job
    return None


@cache
def _user_lock() -> Select[str]:
    return select(User.id).where(User.id == OF_USER).with_for_update(key_share=True)


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


@cache
def _users_to_finish() -> RoundRobin:
    return RoundRobin(Rotation.FINISH, has_work=claimable.user_may_finish())


def _claim_segment_of(session: Session, turn: Turn, cap: int | None, lease: Mapping[str, Any]) -> Job | None:
    taken: list[str] = []
    of_user: dict[str, Any] = {OF_USER.key: turn.user_id, **lease}
    while True:
        limits = (cap, turn.is_capped, bool(taken))
        row = session.connection().execute(_segment_claim(*limits), of_user).one_or_none()
        if row is not None:
            segment_id, render_id, attempt, *segment = row
            return _job(
                session,
                kind=WorkKind.UPSCALE,
                render_id=render_id,
                user_id=turn.user_id,
                segment_id=segment_id,
                attempt=attempt,
                segments=[_segment_job(*segment)],
            )
        # Other workers have locked all waiting segments of the first render, and will commit their claims soon.
        render_id = session.scalar(_next_render(*limits), of_user)
        if render_id is None:
            return None
        taken.append(render_id)
        of_user[BUT.key] = taken


@cache
def _next_render(cap: int | None, is_capped: bool, has_taken: bool) -> Select[str]:
    """The user's first render with a segment to claim, with `has_taken` the first not in BUT.

    Checks a cap again: the user's row is locked only now.
    """
    first = select(Render.id).where(
        Render.user_id == OF_USER,
        Render.status == RenderStatus.PROCESSING,
        claimable.suits_worker(),
        claimable.render_waits(),
    )
    if has_taken:
        first = first.where(Render.id.not_in(BUT))
    if is_capped:
        first = first.join(User, User.id == Render.user_id).where(claimable.below_cap(cap=cap))
    return first.order_by(*WITHIN_USER).limit(ONE)


@cache
def _segment_claim(cap: int | None, is_capped: bool, has_taken: bool) -> ReturningUpdate[*tuple[Any, ...]]:
    """Leases the first waiting segment of that render."""
    first_render = _next_render(cap, is_capped, has_taken).correlate(None).scalar_subquery()
    of_first_render = Segment.render_id == first_render
    waiting = (
        select(Segment.id).where(of_first_render, claimable.ready_to_upscale()).order_by(Segment.position)
    )
    claim = claim_first(
        Segment,
        waiting,
        seconds=FOR_SECONDS,
        worker=BY_WORKER,
        status=SegmentStatus.RUNNING,
        frames_done=0,
    )
    return claim.returning(Segment.id, Segment.render_id, Segment.attempt, *SEGMENT_COLUMNS)


def _claim_prepare(
    session: Session,
    users: RoundRobin,
    parameters: Mapping[str, Any],
    cap: int | None,
    lease_seconds: float,
) -> Job | None:
    return _claim_in_turn(
        session,
        users,
        parameters,
        lambda turn: _claim_render_of(session, WorkKind.PREPARE, turn, lease_seconds, parameters, cap),
    )


def _claim_render_of(
    session: Session,
    kind: WorkKind,
    turn: Turn,
    lease_seconds: float,
    parameters: Mapping[str, Any],
    cap: int | None = None,
) -> Job | None:
    lease = {OF_USER.key: turn.user_id, FOR_SECONDS.key: lease_seconds, **parameters}
    row = session.execute(_render_claim(kind, cap), lease).one_or_none()
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
    """Leases the user's first render that is ready to be finished or prepared. Checks the cap on renders to prepare
    again: the user's row is locked only now."""
    candidates = select(Render.id).where(Render.user_id == OF_USER)
    if kind is WorkKind.FINISH:
        candidates = candidates.where(claimable.ready_to_finish())
    else:
        candidates = candidates.join(User, User.id == Render.user_id)
        candidates = candidates.where(claimable.ready_to_prepare(), claimable.below_render_cap(cap=cap))
    claim = claim_first(
        Render,
        candidates.order_by(*WITHIN_USER),
        seconds=FOR_SECONDS,
        worker=BY_WORKER,
        **taken_from_queue(),
    )
    return claim.returning(Render.id, Render.attempt)


def _job(
    session: Session, *, kind: WorkKind, render_id: str, user_id: str | None = None, **claimed: Any
) -> Job:
    """`user_id` is the served user, for a segment."""
    of_render = {OF_RENDER.key: render_id} | ({} if user_id is None else {OF_USER.key: user_id})
    render = session.connection().execute(_render_to_work_on(kind), of_render).one()
    # Whether few segments wait is a slower query, which runs only if there is a render to prepare.
    may_prepare = render._mapping[IS_TO_PREPARE] and session.scalar(_few_segments_wait(), of_render)
    opened = Counter({WorkKind.PREPARE.queue: 1} if may_prepare else {})
    return Job.of(
        render, input_key=render.input_key, kind=kind, render_id=render_id, opened=opened, **claimed
    )


@cache
def _few_segments_wait() -> Select[bool]:
    return select(claimable.few_segments_wait(OF_USER))


def _segment_job(*columns: Any) -> SegmentJob:
    return SegmentJob(**{column.key: value for column, value in zip(SEGMENT_COLUMNS, columns, strict=True)})


@cache
def _render_to_work_on(kind: WorkKind) -> Select[*tuple[Any, ...]]:
    """Selects a job's fields of its render, by their names in `Job`, and for a segment whether a render of
    its user can be prepared."""
    to_prepare = select(Render.id).where(Render.user_id == OF_USER, claimable.ready_to_prepare())
    is_to_prepare = to_prepare.correlate(None).exists() if kind is WorkKind.UPSCALE else false()
    return (
        select(
            *JOB_COLUMNS,
            File.storage_key.label("input_key"),
            is_to_prepare.label(IS_TO_PREPARE),
        )
        .join(File, File.id == Render.file_id)
        .where(Render.id == OF_RENDER)
    )


@cache
def _segments_to_join() -> Select[*tuple[Any, ...]]:
    return select(*SEGMENT_COLUMNS).where(Segment.render_id == OF_RENDER).order_by(Segment.position)
