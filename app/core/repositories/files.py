"""Uploaded files."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core.secrets import is_id
from app.core.tables import File


def find_file(session: Session, *, file_id: str, user_id: str) -> File | None:
    """The user's own file of that id; another user's is not found."""
    if not is_id(file_id):
        return None
    return session.scalar(select(File).where(File.id == file_id, File.user_id == user_id))
