"""Users' view of renders."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Select, String, and_, bindparam, case, delete, func, or_, select, true, update
from sqlalchemy.orm import Session, joinedload

from app.accounts.tables import User
from app.files.tables import File
from app.platform.database import ColumnReader, among, database_now, fetch_rows, is_among
from app.platform.media.info import VideoProperties
from app.platform.media.work_options import WorkOptions
from app.platform.pagination import Page, read_page
from app.platform.secrets import is_id
from app.renders.statuses import ENDED, RenderStatus, SegmentStatus
from app.renders.tables import Render, Segment

# Every poll runs these statements: they are built once, because building one takes longer than running it.
RENDER = bindparam("render", type_=String)
USER = bindparam("user", type_=String)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """The columns of a file that its renders show."""

    name: str
    storage_key: str
    removed_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class StoredRender(WorkOptions):
    """The columns of a render that its user sees, as `tables.Render` names them."""

    id: str
    user_id: str
    status: RenderStatus
    created_at: datetime
    completed_at: datetime | None
    target_fps_sent: float | None
    user_metadata: dict[str, Any] | None
    cancel_after: int | None
    file_id: str
    cost: float
    error: str | None
    request_id: str | None
    warnings: list[str]
    priority: int
    webhook_url: str | None
    destination: str | None
    destination_state: dict[str, Any] | None
    retry_of: str | None
    quality: dict[str, Any] | None
    encoded_quality: dict[str, Any] | None
    output_key: str | None
    output_bytes: int | None
    thumbnail_key: str | None
    is_watchable: bool
    files_removed_at: datetime | None
    input: VideoProperties
    output: VideoProperties
    file: StoredFile


# The source of answers: a render that is being changed, or one that was only read.
ShownRender = Render | StoredRender

_SHOWN_COLUMNS = [each.name for each in fields(StoredRender)][:-3]
_VIDEO_COLUMNS = [each.name for each in fields(VideoProperties)]
_FILE_COLUMNS = [each.name for each in fields(StoredFile)]


@dataclass(frozen=True, kw_only=True)
class FramesDone:
    """How many source frames of a render have been upscaled, of how many. Both 0 before it is prepared.

    `has_start`: whether its first segment is done.
    """

    done: int
    total: int
    has_start: bool = field(default=False, compare=False)


def find_render(session: Session, *, render_id: str, user_id: str) -> Render | None:
    """The user's own render with that id, with its file; another user's is not found."""
    if not is_id(render_id):
        return None
    return session.scalar(_own_render(), {RENDER.key: render_id, USER.key: user_id})


def find_stored_render(reader: ColumnReader, *, render_id: str, user_id: str) -> StoredRender | None:
    """As `find_render`, at a third of its cost, for callers that only read."""
    if not is_id(render_id):
        return None
    rows = fetch_rows(reader, _own_stored_render(), {RENDER.key: render_id, USER.key: user_id})
    if not rows:
        return None
    shown, video = len(_SHOWN_COLUMNS), len(_VIDEO_COLUMNS)
    row = rows[0]
    return StoredRender(
        **dict(zip(_SHOWN_COLUMNS, row[:shown], strict=True)),
        input=VideoProperties(*row[shown : shown + video]),
        output=VideoProperties(*row[shown + video : shown + 2 * video]),
        file=StoredFile(*row[shown + 2 * video :]),
    )


def find_renders(session: Session, *, render_ids: Collection[str], user_id: str) -> Sequence[Render]:
    """Those of these renders that exist and belong to the user, with their files."""
    query = (
        select(Render)
        .options(joinedload(Render.file))
        .where(Render.id.in_(render_ids), Render.user_id == user_id)
    )
    return session.scalars(query).all()


def list_renders(
    session: Session,
    *,
    user_id: str | None,
    limit: int,
    cursor: str | None = None,
    status: RenderStatus | None = None,
    engine: str | None = None,
) -> Page[Render]:
    """The user's own renders, or those of all users, with their files."""
    query = select(Render).options(joinedload(Render.file))
    if user_id is not None:
        query = query.where(Render.user_id == user_id)
    if status is not None:
        query = query.where(Render.status == status)
    if engine is not None:
        query = query.where(Render.engine == engine)
    return read_page(session, query, Render, limit=limit, cursor=cursor)


def queue_positions(reader: ColumnReader, *, user_id: str, render_ids: Collection[str]) -> dict[str, int]:
    """The position of each of the user's queued renders in the order of preparation; 1 is next.

    Users take turns: before a user's third render come up to two of each other user, and a third of those
    whose turn is earlier. A position grows only when another user's turn comes first, or when a render of the
    same user has a higher priority.
    """
    statement = _queue_positions(is_alone=len(render_ids) == 1)
    rows = fetch_rows(reader, statement, {USER.key: user_id, **among(render_ids)})
    return {render_id: int(place) for render_id, place in rows}


def frames_done(reader: ColumnReader, *, render_ids: Collection[str]) -> dict[str, FramesDone]:
    """For those of the renders that have segments."""
    rows = fetch_rows(reader, _frames_done(is_alone=len(render_ids) == 1), among(render_ids))
    return {
        render_id: FramesDone(done=int(done), total=int(total), has_start=bool(has_start))
        for render_id, done, total, has_start in rows
    }


@cache
def _own_render() -> Select[Render]:
    return select(Render).options(joinedload(Render.file)).where(Render.id == RENDER, Render.user_id == USER)


@cache
def _own_stored_render() -> Select[*tuple[Any, ...]]:
    render, file = Render.__table__, File.__table__
    names = [*_SHOWN_COLUMNS, *(prefix + name for prefix in ("input_", "output_") for name in _VIDEO_COLUMNS)]
    return (
        select(*(render.c[name] for name in names), *(file.c[name] for name in _FILE_COLUMNS))
        .join_from(render, file, file.c.id == render.c.file_id)
        .where(render.c.id == RENDER, render.c.user_id == USER)
    )


@cache
def _queue_positions(*, is_alone: bool) -> Select[str, Any]:
    is_queued = Render.status == RenderStatus.QUEUED
    in_turn = func.row_number().over(order_by=(Render.priority.desc(), Render.created_at, Render.id))
    own = select(Render.id, (in_turn - 1).label("before")).where(Render.user_id == USER, is_queued).subquery()
    queued = (
        select(Render.user_id, func.count().label("count"))
        .where(is_queued)
        .group_by(Render.user_id)
        .subquery()
    )
    turn = select(User.prepared_at).where(User.id == USER).scalar_subquery()
    is_earlier = or_(
        and_(User.prepared_at.is_(None), or_(turn.is_not(None), User.id < USER)),
        User.prepared_at < turn,
        and_(User.prepared_at == turn, User.id < USER),
    )
    ahead = case((queued.c.count < own.c.before, queued.c.count), else_=own.c.before) + case(
        (and_(queued.c.count > own.c.before, User.id != USER, is_earlier), 1), else_=0
    )
    return (
        select(own.c.id, 1 + func.sum(ahead))
        .select_from(own)
        .join(queued, true())
        .join(User, User.id == queued.c.user_id)
        .where(is_among(own.c.id, is_alone=is_alone))
        .group_by(own.c.id)
    )


@cache
def _frames_done(*, is_alone: bool) -> Select[str, Any, Any, Any]:
    is_start = and_(Segment.position == 0, Segment.status == SegmentStatus.DONE)
    return (
        select(
            Segment.render_id,
            func.sum(Segment.frames_done),
            func.sum(Segment.frames) + func.coalesce(func.max(Render.unplanned_frames), 0),
            func.max(case((is_start, 1), else_=0)),
        )
        .join(Render, Render.id == Segment.render_id)
        .where(is_among(Segment.render_id, is_alone=is_alone))
        .group_by(Segment.render_id)
    )


def stop_giving_out(session: Session, *, render_id: str) -> None:
    """Withdraw the render's results: no further URL of them is signed."""
    session.execute(
        update(Render)
        .where(Render.id == render_id)
        .values(files_removed_at=func.coalesce(Render.files_removed_at, database_now()))
        .execution_options(synchronize_session=False)
    )


def delete_render(session: Session, *, render_id: str) -> None:
    """Delete an ended render's row and those of its segments."""
    session.execute(delete(Segment).where(Segment.render_id == render_id))
    session.execute(delete(Render).where(Render.id == render_id, Render.status.in_(ENDED)))
