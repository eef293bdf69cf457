"""Uploaded files."""

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from app.files.tables import File
from app.platform.pages import Page, read_page
from app.platform.secrets import is_id


def find_file(session: Session, *, file_id: str, user_id: str) -> File | None:
    """The user's own file of that id; another user's is not found, nor one that was removed."""
    return session.scalar(_own(file_id, user_id)) if is_id(file_id) else None


def list_files(session: Session, *, user_id: str, limit: int, cursor: str | None) -> Page[File]:
    """The user's own files that were not removed."""
    query = select(File).where(File.user_id == user_id, File.removed_at.is_(None))
    return read_page(session, query, File, limit=limit, cursor=cursor)


def find_file_to_use(session: Session, *, file_id: str, user_id: str) -> File | None:
    """As `find_file`, and until the session ends the clean-up does not remove it."""
    return session.scalar(_own(file_id, user_id).with_for_update(read=True)) if is_id(file_id) else None


def _own(file_id: str, user_id: str) -> Select[File]:
    return select(File).where(File.id == file_id, File.user_id == user_id, File.removed_at.is_(None))
