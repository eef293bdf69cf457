"""Claimable work, as conditions on rows of renders, segments and users.

With the parameters of a claim (`failed_attempts.BY_WORKER`) it is what that worker may claim, otherwise what
any worker may.

The conditions that every claim uses are built once: they are large.
"""

from collections import Counter
from functools import cache
from typing import Any, TypeAlias

from sqlalchemy import (
    BindParameter,
    Boolean,
    ColumnElement,
    Integer,
    Select,
    String,
    and_,
    bindparam,
    func,
    literal,
    or_,
    select,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import InstrumentedAttribute, Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from app.accounts.tables import User
from app.platform.database import ONE
from app.platform.lease import is_rested
from app.platform.media.codecs import VMAF_PREFIX
from app.platform.work_kinds import WorkKind
from app.renders.statuses import RenderStatus, SegmentStatus
from app.renders.tables import Render, Segment
from app.work.failed_attempts import is_for_others, upscaling_failed_lately
from app.work.queries import ReadyUnits, no_segment_is_left

# On SQLite no render of a user is prepared while so many segments of one wait, however many run.
MOST_WAITING = 256

# A parameter of a claim: the engines that the worker upscales with, each in quotation marks; empty for all.
OF_ENGINES = bindparam("of_engines", value="", type_=String)
# Another: the codecs that the worker cannot encode, each in quotation marks.
LACKED_CODECS = bindparam("lacked_codecs", value="", type_=String)
# Another: whether the worker measures VMAF, for renders whose quality is searched.
MEASURES_VMAF = bindparam("measures_vmaf", value=True, type_=Boolean)
# Another: each "engine/precision" of `worker_queries.left_to_others`, in quotation marks.
LEFT_TO_OTHERS = bindparam("left_to_others", value="", type_=String)

UserId: TypeAlias = BindParameter[str] | InstrumentedAttribute[str]


def ready_units(session: Session, *, cap: int | None, render_cap: int | None = None) -> ReadyUnits:
    """How many units of work free workers could claim now. The caps, on segments and on renders, are for
    users without their own."""
    may_prepare = user_may_prepare(cap=render_cap)
    to_prepare = and_(
        ready_to_prepare(), Render.user_id.in_(select(User.id).where(may_prepare).correlate(None))
    )
    ready: ReadyUnits = Counter()
    ready[WorkKind.FINISH.queue] += _count_renders(session, ready_to_finish())
    ready[WorkKind.UPSCALE.queue] += _claimable_segments(session, cap=cap)
    ready[WorkKind.PREPARE.queue] += _count_renders(session, to_prepare)
    return +ready


def ready_to_prepare() -> ColumnElement[bool]:
    return and_(
        # Named one by one, so that an index is used.
        Render.status.in_((RenderStatus.QUEUED, RenderStatus.PENDING, RenderStatus.PROCESSING)),
        or_(Render.status != RenderStatus.PROCESSING, Render.unplanned_frames.is_not(None)),
        Render.lease_expires_at.is_(None),
        is_rested(Render),
        ~is_for_others(Render, WorkKind.PREPARE),
    )


@cache
def ready_to_finish() -> ColumnElement[bool]:
    return and_(
        Render.status == RenderStatus.PROCESSING,
        Render.unplanned_frames.is_(None),
        Render.lease_expires_at.is_(None),
        is_rested(Render),
        ~is_for_others(Render, WorkKind.FINISH),
        no_segment_is_left(Render.id),
    )


def ready_to_upscale() -> ColumnElement[bool]:
    return and_(
        Segment.status == SegmentStatus.WAITING, is_rested(Segment), ~is_for_others(Segment, WorkKind.UPSCALE)
    )


def render_waits() -> ColumnElement[bool]:
    """The render has a segment that could be claimed."""
    # Not EXISTS, here and below, which PostgreSQL may turn into a join of all waiting segments. As a subquery of each
    # render it searches the index for one of them, whatever the statistics of the statuses, which change fast. It is
    # the order that makes it do so: else it may read through all segments up to one that waits.
    first = _segments(ready_to_upscale()).order_by(Segment.position).limit(ONE)
    return first.with_only_columns(literal(1)).scalar_subquery().is_not(None)


@cache
def user_may_upscale(*, cap: int | None) -> ColumnElement[bool]:
    """The user has a segment that could be claimed, and runs fewer than their cap."""
    at_work = select(Render.user_id).where(Render.status == RenderStatus.PROCESSING).correlate(None)
    waits = _renders_of(User.id).where(suits_worker(), render_waits()).limit(ONE).scalar_subquery()
    return and_(User.id.in_(at_work), waits.is_not(None), below_cap(cap=cap))


@cache
def user_may_prepare(*, cap: int | None) -> ColumnElement[bool]:
    """The user has a render to prepare, few segments waiting, and fewer running renders than their cap."""
    in_need = select(Render.user_id).where(ready_to_prepare()).correlate(None)
    return and_(User.id.in_(in_need), few_segments_wait(User.id), below_render_cap(cap=cap))


@cache
def user_may_finish() -> ColumnElement[bool]:
    """The user has a render to finish."""
    return User.id.in_(select(Render.user_id).where(ready_to_finish()).correlate(None))


def suits_worker() -> ColumnElement[bool]:
    """The claiming worker upscales with the render's engine, encodes its codec, can search for its quality,
    and need not leave it to others that
    compute in its precision. They may be unable, too: once an attempt failed, it is left to nobody for a while."""
    can_encode = or_(Render.codec.is_(None), ~LACKED_CODECS.contains('"' + Render.codec + '"'))
    can_search = or_(
        Render.output_quality.is_(None), ~Render.output_quality.startswith(VMAF_PREFIX), MEASURES_VMAF
    )
    is_left = LEFT_TO_OTHERS.contains('"' + Render.engine + "/" + Render.precision + '"')
    return and_(
        or_(OF_ENGINES == "", OF_ENGINES.contains('"' + Render.engine + '"')),
        can_encode,
        can_search,
        or_(Render.precision.is_(None), ~is_left, upscaling_failed_lately()),
    )


def segments_wait(user_id: UserId) -> ColumnElement[bool]:
    """The user has a segment that could be claimed without a cap."""
    return _renders_of(user_id).where(render_waits()).limit(ONE).scalar_subquery().is_not(None)


def is_capped(*, cap: int | None) -> ColumnElement[bool]:
    return func.coalesce(User.max_running_segments, cap).is_not(None)


@cache
def below_cap(*, cap: int | None) -> ColumnElement[bool]:
    """The user may have one more running segment."""
    own = func.coalesce(User.max_running_segments, cap)
    return or_(own.is_(None), _running(User.id) < own)


def is_render_capped(*, cap: int | None) -> ColumnElement[bool]:
    return func.coalesce(User.max_running_renders, cap).is_not(None)


@cache
def below_render_cap(*, cap: int | None) -> ColumnElement[bool]:
    """The user may have one more running render. A render given back before it was prepared does not count."""
    own = func.coalesce(User.max_running_renders, cap)
    is_held = or_(
        and_(Render.status == RenderStatus.PROCESSING, Render.unplanned_frames.is_(None)),
        Render.lease_expires_at.is_not(None),
    )
    at_work = (
        select(func.count())
        .select_from(Render)
        .where(
            Render.user_id == User.id,
            Render.status.in_((RenderStatus.PENDING, RenderStatus.PROCESSING)),
            is_held,
        )
        .correlate(User)
        .scalar_subquery()
    )
    return or_(own.is_(None), at_work < own)


def few_segments_wait(user_id: UserId) -> ColumnElement[bool]:
    """No segment of the user waits, or fewer wait than run.

    With one worker this means: none waits. With many, a user's next render is prepared while the last
    segments of the previous one run. It reads only a few segments, however many there are.
    """
    running = _running(user_id)
    waiting = _sum(user_id, _segments(ready_to_upscale()).limit(_enough(running)))
    return or_(~segments_wait(user_id), and_(running > 1, waiting < running))


class _enough(FunctionElement[int]):  # noqa: N801  (SQL functions are written in lower case)
    """How many waiting segments of a render to read, to know whether they are fewer than the running ones."""

    type = Integer()
    inherit_cache = True
    name = "enough"


@compiles(_enough, "postgresql")
def _as_many_as_run(element: _enough, compiler: SQLCompiler, **options: Any) -> str:
    return compiler.process(element.clauses, **options)


@compiles(_enough, "sqlite")
def _as_many_as_wait(element: _enough, compiler: SQLCompiler, **options: Any) -> str:
    # Its limits cannot depend on the row.
    return str(MOST_WAITING)


def _running(user_id: UserId) -> ColumnElement[int]:
    # Counted once for all users: few segments run, but PostgreSQL might read all of them for each user.
    by_user = (
        select(Render.user_id, func.count().label("count"))
        .join(Segment, Segment.render_id == Render.id)
        .where(Segment.status == SegmentStatus.RUNNING)
        .group_by(Render.user_id)
        .correlate(None)
        .cte("running")
        .prefix_with("MATERIALIZED", dialect="postgresql")
    )
    own = select(by_user.c.count).where(by_user.c.user_id == user_id).correlate(User).scalar_subquery()
    return func.coalesce(own, 0)


def _sum(user_id: UserId, segments: Select[str]) -> ColumnElement[int]:
    """Counts these segments in all of the user's renders."""
    in_render = select(func.count()).select_from(segments.subquery()).scalar_subquery()
    renders = _renders_of(user_id).with_only_columns(func.coalesce(func.sum(in_render), 0))
    return renders.scalar_subquery()


def _renders_of(user_id: UserId) -> Select[str]:
    query = select(Render.id).where(Render.user_id == user_id, Render.status == RenderStatus.PROCESSING)
    return query.correlate(User)


def _segments(condition: ColumnElement[bool]) -> Select[str]:
    return select(Segment.id).where(Segment.render_id == Render.id, condition).correlate(Render)


def _claimable_segments(session: Session, *, cap: int | None) -> int:
    def counts(condition: ColumnElement[bool]) -> dict[str, int]:
        query = (
            select(Render.user_id, func.count())
            .join(Segment, Segment.render_id == Render.id)
            .where(Render.status == RenderStatus.PROCESSING, condition)
            .group_by(Render.user_id)
        )
        return dict(session.execute(query).all())

    waiting = counts(ready_to_upscale())
    own_caps = select(User.id, User.max_running_segments).where(User.max_running_segments.is_not(None))
    caps = dict.fromkeys(waiting, cap) | dict(session.execute(own_caps).all())
    running = counts(Segment.status == SegmentStatus.RUNNING) if any(caps.values()) else {}

    def claimable(user_id: str) -> int:
        most = caps[user_id]
        return (
            waiting[user_id]
            if most is None
            else max(0, min(waiting[user_id], most - running.get(user_id, 0)))
        )

    return sum(map(claimable, waiting))


def _count_renders(session: Session, condition: ColumnElement[bool]) -> int:
    return session.scalar(select(func.count()).select_from(Render).where(condition)) or 0
