"""Uploads in parts."""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Row, Update, and_, delete, func, or_, select, update
from sqlalchemy.orm import Session

from app.platform.database import count_changed, database_now
from app.platform.pagination import Page, read_page
from app.platform.secrets import is_id
from app.uploads.tables import Upload


def find_upload(session: Session, *, upload_id: str, user_id: str) -> Upload | None:
    """The user's own upload with that id, even if it has ended."""
    query = select(Upload).where(Upload.id == upload_id, Upload.user_id == user_id)
    return session.scalar(query) if is_id(upload_id) else None


def list_open(
    session: Session, *, user_id: str, moment: datetime, limit: int, cursor: str | None
) -> Page[Upload]:
    """The user's own open uploads."""
    query = select(Upload).where(_open_of(user_id, moment))
    return read_page(session, query, Upload, limit=limit, cursor=cursor)


def count_open(session: Session, *, user_id: str, moment: datetime) -> int:
    return session.scalar(select(func.count()).select_from(Upload).where(_open_of(user_id, moment))) or 0


def note_completed(session: Session, *, upload_id: str, moment: datetime) -> bool:
    """Record that the upload has become a file. False if it had already ended."""
    return _end(session, upload_id, update(Upload).values(completed_at=moment))


def note_aborted(session: Session, *, upload_id: str, moment: datetime) -> bool:
    """Record that the upload will not become a file. False if it had already ended."""
    return _end(session, upload_id, update(Upload).values(aborted_at=moment))


def note_cleaned(session: Session, upload_id: str) -> None:
    """Record that an upload that will not become a file has no bytes in storage."""
    count_changed(session, update(Upload).where(Upload.id == upload_id).values(cleaned_at=database_now()))


def abort_expired(session: Session, *, expired_for: float) -> int:
    """Abort open uploads that expired that many seconds ago."""
    return count_changed(
        session, update(Upload).where(_expired(expired_for)).values(aborted_at=database_now())
    )


def forget(session: Session, *, ended_for: float) -> None:
    """Delete rows of uploads that became files, or of which nothing was left, that many seconds ago. The
    files stay."""
    moment = database_now(plus_seconds=-ended_for)
    ended = or_(Upload.completed_at < moment, Upload.cleaned_at < moment)
    session.execute(delete(Upload).where(ended).execution_options(synchronize_session=False))


def due_to_clean(session: Session, *, limit: int, but: Collection[str] = ()) -> Sequence[Row[str, str, str]]:
    """Uploads that will not become files: each one's id, the id reserved for its file, and its id in storage."""
    query = (
        select(Upload.id, Upload.file_id, Upload.multipart_id)
        .where(_to_clean(), Upload.id.not_in(but))
        .order_by(Upload.expires_at)
        .limit(limit)
    )
    return session.execute(query).all()


def count_to_clean(session: Session, *, expired_for: float) -> int:
    condition = _to_clean() | _expired(expired_for)
    return session.scalar(select(func.count()).select_from(Upload).where(condition)) or 0


def files_to_be(session: Session, ids: Iterable[str]) -> set[str]:
    """Those of the file ids that belong to open uploads, or to ended ones whose objects were not removed yet."""
    pending = and_(Upload.completed_at.is_(None), Upload.cleaned_at.is_(None))
    return set(session.scalars(select(Upload.file_id).where(Upload.file_id.in_(ids), pending)))


def _open_of(user_id: str, moment: datetime) -> ColumnElement[bool]:
    return and_(
        Upload.user_id == user_id,
        Upload.completed_at.is_(None),
        Upload.aborted_at.is_(None),
        Upload.expires_at > moment,
    )


def _to_clean() -> ColumnElement[bool]:
    return and_(Upload.completed_at.is_(None), Upload.cleaned_at.is_(None), Upload.aborted_at.is_not(None))


def _expired(expired_for: float) -> ColumnElement[bool]:
    return and_(
        Upload.completed_at.is_(None),
        Upload.cleaned_at.is_(None),
        Upload.aborted_at.is_(None),
        Upload.expires_at < database_now(plus_seconds=-expired_for),
    )


def _end(session: Session, upload_id: str, change: Update) -> bool:
    condition = and_(Upload.id == upload_id, Upload.completed_at.is_(None), Upload.aborted_at.is_(None))
    return bool(count_changed(session, change.where(condition)))
