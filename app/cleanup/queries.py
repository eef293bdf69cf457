"""Rows whose files are no longer needed, and the updates after their removal.

Ages are seconds on the database's clock. Each `due_*` returns the oldest first, without the ids in `but`.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, Select, and_, case, delete, exists, func, or_, select, update
from sqlalchemy.orm import Session

from app.accounts.tables import IdempotencyKey
from app.files import queries as file_queries
from app.files.tables import File
from app.platform.database import count_changed, database_now
from app.previews.tables import Preview
from app.renders.statuses import ENDED, RenderStatus
from app.renders.tables import Render, Segment

Ids: TypeAlias = Collection[str]

# Of a render's objects, those that stay with its result. One that failed keeps nothing.
_KEPT_KEYS = (
    Render.output_key,
    Render.thumbnail_key,
    case((Render.output_key.is_not(None), Render.sound_key)),
)


@dataclass(frozen=True, kw_only=True)
class Due:
    """A due row. `keys` are the objects to remove; for a render to be cleaned, the objects to keep."""

    id: str
    keys: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class KnownRender:
    """`is_settled`: the render has ended and was cleaned, so only the objects in `keys` belong to it."""

    is_settled: bool
    keys: frozenset[str]


def note_ends(session: Session) -> None:
    """Set the missing end of ended renders, which the previous version does not write during a rolling upgrade."""
    unsaid = and_(Render.ended_at.is_(None), Render.cleaned_at.is_(None), Render.status.in_(ENDED))
    count_changed(session, update(Render).where(unsaid).values(ended_at=database_now()))


def due_to_clean(session: Session, *, ended_for: float, limit: int, but: Ids = ()) -> Sequence[Due]:
    """Renders that ended that long ago and are not cleaned yet."""
    query = (
        select(Render.id, *_KEPT_KEYS)
        .where(_to_clean(ended_for), Render.id.not_in(but))
        .order_by(Render.ended_at)
        .limit(limit)
    )
    return _due(session, query)


def shed_segments(session: Session, *, render_id: str, limit: int) -> int:
    """Delete up to `limit` segment rows of an ended render. Returns their number; fewer than `limit` are the last.

    The rows of a failed render stay, without their plans, because its progress is computed from them.
    """
    own = select(Segment.id).join(Segment.render).where(Render.id == render_id).limit(limit)
    completed = own.where(Render.status == RenderStatus.COMPLETED)
    failed = own.where(Render.status == RenderStatus.FAILED, Segment.plan != "")
    removed = count_changed(session, delete(Segment).where(Segment.id.in_(completed)))
    return removed + count_changed(session, update(Segment).where(Segment.id.in_(failed)).values(plan=""))


def note_cleaned(session: Session, render_id: str) -> None:
    count_changed(session, update(Render).where(Render.id == render_id).values(cleaned_at=database_now()))


def give_up_results(session: Session, *, ended_for: float, limit: int) -> int:
    """Withdraw the results of renders that were completed that long ago. Returns the number of renders."""
    chosen = select(Render.id).where(_to_give_up(ended_for)).order_by(Render.ended_at).limit(limit)
    return count_changed(
        session, update(Render).where(Render.id.in_(chosen)).values(files_removed_at=database_now())
    )


def due_results(session: Session, *, given_up_for: float, limit: int, but: Ids = ()) -> Sequence[Due]:
    """Results that were withdrawn that long ago."""
    query = (
        select(Render.id, *_KEPT_KEYS)
        .where(_results_to_erase(given_up_for), Render.id.not_in(but))
        .order_by(Render.files_removed_at)
        .limit(limit)
    )
    return _due(session, query)


def note_results_erased(session: Session, render_id: str) -> None:
    count_changed(
        session,
        update(Render)
        .where(Render.id == render_id)
        .values(output_key=None, thumbnail_key=None, sound_key=None, segment_times=None, is_watchable=False),
    )


def unused_files(session: Session, *, unused_for: float, limit: int, but: Ids = ()) -> Sequence[str]:
    """Ids of files that seem unused; `give_up_file` decides."""
    query = (
        select(File.id)
        .where(File.removed_at.is_(None), _unused(unused_for), File.id.not_in(but))
        .order_by(File.created_at)
        .limit(limit)
    )
    return session.scalars(query).all()


def give_up_file(session: Session, file_id: str, *, unused_for: float) -> bool:
    """Withdraw the file. Returns False if it was used in between, also by a render that is just being submitted."""
    return file_queries.withdraw_if(session, file_id, _unused(unused_for))


def due_files(session: Session, *, given_up_for: float, limit: int, but: Ids = ()) -> Sequence[Due]:
    """Files that were withdrawn that long ago."""
    query = (
        select(File.id, File.storage_key)
        .where(_files_to_erase(given_up_for), File.id.not_in(but))
        .order_by(File.removed_at)
        .limit(limit)
    )
    return _due(session, query)


def forget_requests(session: Session, *, made_for: float) -> None:
    """Delete idempotency keys of requests that were made that long ago."""
    count_changed(
        session,
        delete(IdempotencyKey).where(IdempotencyKey.created_at < database_now(plus_seconds=-made_for)),
    )


def known_files(session: Session, ids: Iterable[str]) -> set[str]:
    """The ids of files whose bytes are not erased."""
    return set(session.scalars(select(File.id).where(File.id.in_(ids), File.erased_at.is_(None))))


def known_renders(session: Session, ids: Iterable[str]) -> dict[str, KnownRender]:
    """The renders with these ids."""
    columns = (Render.id, Render.cleaned_at, *_KEPT_KEYS)
    rows = session.execute(select(*columns).where(Render.id.in_(ids)))
    return {
        row_id: KnownRender(is_settled=cleaned_at is not None, keys=frozenset(filter(None, keys)))
        for row_id, cleaned_at, *keys in rows
    }


def count_renders_to_clean(session: Session, *, ended_for: float) -> int:
    return _count(session, Render, _to_clean(ended_for))


def count_results_to_give_up(session: Session, *, ended_for: float) -> int:
    return _count(session, Render, _to_give_up(ended_for))


def count_results_to_erase(session: Session, *, given_up_for: float) -> int:
    return _count(session, Render, _results_to_erase(given_up_for))


def count_unused_files(session: Session, *, unused_for: float) -> int:
    return _count(session, File, and_(File.removed_at.is_(None), _unused(unused_for)))


def count_files_to_erase(session: Session, *, given_up_for: float) -> int:
    return _count(session, File, _files_to_erase(given_up_for))


def _to_clean(ended_for: float) -> ColumnElement[bool]:
    return and_(Render.cleaned_at.is_(None), Render.ended_at < database_now(plus_seconds=-ended_for))


def _to_give_up(ended_for: float) -> ColumnElement[bool]:
    return and_(
        Render.output_key.is_not(None),
        Render.files_removed_at.is_(None),
        Render.ended_at < database_now(plus_seconds=-ended_for),
    )


def _results_to_erase(given_up_for: float) -> ColumnElement[bool]:
    return and_(
        Render.output_key.is_not(None), Render.files_removed_at < database_now(plus_seconds=-given_up_for)
    )


def _files_to_erase(given_up_for: float) -> ColumnElement[bool]:
    return and_(File.erased_at.is_(None), File.removed_at < database_now(plus_seconds=-given_up_for))


def _unused(unused_for: float) -> ColumnElement[bool]:
    """Files that were uploaded that long ago and whose renders and previews all ended that long ago."""
    moment = database_now(plus_seconds=-unused_for)
    used = exists().where(
        Render.file_id == File.id, or_(Render.ended_at.is_(None), Render.ended_at >= moment)
    )
    previewed = exists().where(
        Preview.file_id == File.id, or_(Preview.ended_at.is_(None), Preview.ended_at >= moment)
    )
    return and_(File.erased_at.is_(None), File.created_at < moment, ~used, ~previewed)


def _due(session: Session, query: Select[*tuple[Any, ...]]) -> Sequence[Due]:
    return [Due(id=row_id, keys=tuple(filter(None, keys))) for row_id, *keys in session.execute(query)]


def _count(session: Session, table: type[Render] | type[File], condition: ColumnElement[bool]) -> int:
    return session.scalar(select(func.count()).select_from(table).where(condition)) or 0
