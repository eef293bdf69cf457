"""Workload: how much upscaling waits or runs, in pixels of the frames that go through a network, by what is measured.

A queued render counts with its expected work; later, its unfinished segments count.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, String, Subquery, and_, bindparam, case, func, select
from sqlalchemy.orm import Session

from app.platform.database import ColumnReader, among, fetch_rows, is_among
from app.platform.media.picture_options import Deinterlace
from app.platform.media.rates import Retime
from app.renders.statuses import UNFINISHED, RenderStatus, SegmentStatus
from app.renders.tables import Render, Segment

NOT_PLANNED = (RenderStatus.QUEUED, RenderStatus.PENDING)
OPEN_SEGMENT = (SegmentStatus.WAITING, SegmentStatus.RUNNING)

COLUMNS = Render.__table__.columns
USER = bindparam("user", type_=String)


class Upscaling(NamedTuple):
    """What has a speed of its own on a device: an engine, with `stabilise` or without."""

    engine: str
    is_stabilised: bool = False


@dataclass(frozen=True, kw_only=True)
class UserWork:
    """All waiting and running work of one user of one kind."""

    user_id: str
    upscaling: Upscaling
    pixels: float


@dataclass(frozen=True, kw_only=True)
class WorkAhead:
    """The work until a render is done: its own `pixels`, in `parts` that can run at once.

    `until_then` is all of its user's work up to and including this render, by kind. `parts` is None until
    it is planned.
    """

    pixels: float
    parts: int | None
    until_then: Mapping[Upscaling, float]


def work_by_user(session: Session) -> Sequence[UserWork]:
    """The work of every user who has any; up to three entries per user and kind."""
    frame = COLUMNS.input_width * COLUMNS.input_height
    kind = (Render.user_id, Render.engine, _is_stabilised())
    planned_later = select(*kind, func.sum(_expected_frames() * frame)).where(Render.status.in_(NOT_PLANNED))
    read_meanwhile = select(*kind, func.sum(COLUMNS.unplanned_frames * frame)).where(
        Render.status == RenderStatus.PROCESSING, Render.unplanned_frames.is_not(None)
    )
    planned = (
        select(*kind, func.sum((Segment.frames - Segment.frames_done) * frame))
        .join(Segment, Segment.render_id == Render.id)
        .where(Segment.status.in_(OPEN_SEGMENT))
    )
    return [
        UserWork(user_id=user_id, upscaling=Upscaling(engine, bool(stabilised)), pixels=float(pixels))
        for query in (planned_later, read_meanwhile, planned)
        for user_id, engine, stabilised, pixels in session.execute(query.group_by(*kind))
    ]


def work_ahead(
    reader: ColumnReader, *, user_id: str, render_ids: Collection[str], engines: Collection[str]
) -> dict[str, WorkAhead]:
    """The work ahead of each of these unfinished renders of the user.

    Renders in progress come first; then, as everywhere, the highest priority, then the oldest.
    """
    kinds = _kinds(tuple(engines))
    statement = _work_ahead(kinds, is_alone=len(render_ids) == 1)
    rows = fetch_rows(reader, statement, {USER.key: user_id, **among(render_ids)})
    return {
        render_id: WorkAhead(
            pixels=float(pixels),
            parts=parts,
            until_then={kind: float(done) for kind, done in zip(kinds, until_then, strict=True)},
        )
        for render_id, pixels, parts, *until_then in rows
    }


@cache
def _kinds(engines: tuple[str, ...]) -> tuple[Upscaling, ...]:
    return tuple(Upscaling(engine, stabilised) for engine, stabilised in product(engines, (False, True)))


@cache
def _work_ahead(kinds: tuple[Upscaling, ...], *, is_alone: bool) -> Select[*tuple[Any, ...]]:
    """Built once: every poll runs it, and building it takes longer than running it."""
    own = _unfinished()
    in_turn = (own.c.is_queued, own.c.priority.desc(), own.c.created_at, own.c.id)
    sums = [
        func.sum(
            case(
                (
                    and_(own.c.engine == kind.engine, own.c.is_stabilised == int(kind.is_stabilised)),
                    own.c.pixels,
                ),
                else_=0,
            )
        )
        .over(order_by=in_turn)
        .label(f"sum_{number}")
        for number, kind in enumerate(kinds)
    ]
    summed = select(own.c.id, own.c.pixels, own.c.parts, *sums).subquery()
    return select(summed).where(is_among(summed.c.id, is_alone=is_alone))


def work_before_another(session: Session, *, user_id: str, priority: int) -> Mapping[Upscaling, float]:
    """The user's work that would precede a render of that priority submitted now, by kind."""
    own = _unfinished()
    kind = (own.c.engine, own.c.is_stabilised)
    query = (
        select(*kind, func.sum(own.c.pixels))
        .where((own.c.is_queued == 0) | (own.c.priority >= priority))
        .group_by(*kind)
    )
    return {
        Upscaling(engine, bool(stabilised)): float(pixels)
        for engine, stabilised, pixels in session.execute(query, {USER.key: user_id})
    }


def _unfinished() -> Subquery:
    """The renders of the user whose id is the statement's parameter, and the remaining work of each."""
    # Summed once: a subquery for each render would be a costly plan, which takes PostgreSQL longer to compile
    # than to run.
    at_work = select(Render.id).where(Render.user_id == USER, Render.status == RenderStatus.PROCESSING)
    planned = (
        select(
            Segment.render_id,
            func.count().label("parts"),
            func.sum(Segment.frames - Segment.frames_done).label("frames"),
        )
        .where(Segment.render_id.in_(at_work), Segment.status.in_(OPEN_SEGMENT))
        .group_by(Segment.render_id)
        .subquery()
    )
    is_planned = Render.status == RenderStatus.PROCESSING
    rest = func.coalesce(planned.c.frames, 0) + func.coalesce(Render.unplanned_frames, 0)
    frames = case((is_planned, rest), else_=_expected_frames())
    return (
        select(
            Render.id,
            Render.engine,
            _is_stabilised().label("is_stabilised"),
            Render.priority,
            Render.created_at,
            case((Render.status == RenderStatus.QUEUED, 1), else_=0).label("is_queued"),
            (frames * COLUMNS.input_width * COLUMNS.input_height).label("pixels"),
            case((Render.unplanned_frames.is_(None), planned.c.parts)).label("parts"),
        )
        .outerjoin(planned, planned.c.render_id == Render.id)
        .where(Render.user_id == USER, Render.status.in_(UNFINISHED))
        .subquery()
    )


def _is_stabilised() -> ColumnElement[int]:
    return case((Render.stabilise > 0, 1), else_=0)


def _expected_frames() -> ColumnElement[int]:
    """How many frames will go through the network: no frame twice, and including interpolated ones."""
    by_field = Render.deinterlace == Deinterlace.FIELD.value
    before, after = COLUMNS.input_frames * case((by_field, 2), else_=1), COLUMNS.output_frames
    return case(
        (Render.retime == Retime.NEAREST.value, case((before < after, before), else_=after)), else_=after
    )
