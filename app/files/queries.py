"""Uploaded files."""

from typing import Any

from sqlalchemy import ColumnElement, Select, and_, exists, select, update
from sqlalchemy.orm import Session

from app.files.tables import File
from app.platform.database import count_changed, database_now
from app.platform.pagination import Page, read_page
from app.platform.secrets import is_id
from app.previews.tables import Preview
from app.renders.statuses import UNFINISHED
from app.renders.tables import Render


def find_file(session: Session, *, file_id: str, user_id: str) -> File | None:
    """The user's own file with that id; another user's is not found, nor a removed one."""
    return session.scalar(_own(file_id, user_id)) if is_id(file_id) else None


def list_files(session: Session, *, user_id: str, limit: int, cursor: str | None) -> Page[File]:
    """The user's own files that were not removed."""
    query = select(File).where(File.user_id == user_id, File.removed_at.is_(None))
    return read_page(session, query, File, limit=limit, cursor=cursor)


def find_file_to_use(session: Session, *, file_id: str, user_id: str) -> File | None:
    """As `find_file`, and until the session ends the clean-up does not remove it."""
    return session.scalar(_own(file_id, user_id).with_for_update(read=True)) if is_id(file_id) else None


def withdraw_file(session: Session, file_id: str) -> bool:
    """Withdraw the file. Returns False if an unfinished render or preview needs it."""
    needed = exists().where(Render.file_id == File.id, Render.status.in_(UNFINISHED))
    previewed = exists().where(Preview.file_id == File.id, Preview.ended_at.is_(None))
    return withdraw_if(session, file_id, and_(~needed, ~previewed))


def withdraw_if(session: Session, file_id: str, condition: ColumnElement[bool]) -> bool:
    """Withdraw the file. Returns False if the condition does not hold, or it was withdrawn before.

    The file's row is locked first, as the submission of a render does (`find_file_to_use`). The condition is checked in
    a second statement, so that it sees everything committed before the lock was acquired.
    """
    session.execute(select(File.id).where(File.id == file_id).with_for_update())
    withdrawn = update(File).where(File.id == file_id, File.removed_at.is_(None), condition)
    return count_changed(session, withdrawn.values(removed_at=database_now())) == 1


def note_file_erased(session: Session, file_id: str) -> None:
    """Record that the file's bytes were removed from storage."""
    count_changed(session, update(File).where(File.id == file_id).values(erased_at=database_now()))


def note_pictures(session: Session, file_id: str, statistics: dict[str, Any]) -> None:
    count_changed(session, update(File).where(File.id == file_id).values(picture_statistics=statistics))


def _own(file_id: str, user_id: str) -> Select[File]:
    return select(File).where(File.id == file_id, File.user_id == user_id, File.removed_at.is_(None))
