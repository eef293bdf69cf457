"""Renders of any user."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.platform.secrets import is_id
from app.renders.tables import Render


def owner_of(session: Session, *, render_id: str) -> str | None:
    """The id of the render's user; None if there is no such render."""
    if not is_id(render_id):
        return None
    return session.scalar(select(Render.user_id).where(Render.id == render_id))
