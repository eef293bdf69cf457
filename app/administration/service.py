"""Renders of any user, as those who run the server set them going again."""

from sqlalchemy.orm import Session

from app.administration import queries as administration_queries
from app.platform.errors import Conflict, NotFound
from app.renders.service import RenderView, find_render, retry_render
from app.usage.allowances import Allowance
from app.work import queries as work_queries


def requeue_render(session: Session, *, render_id: str) -> RenderView:
    """Take an unfinished render out of all workers' hands, so that it is taken up at once.

    Raises NotFound for an unknown render, Conflict for one that has ended.
    """
    user_id = _owner(session, render_id)
    if work_queries.requeue(session, render_id=render_id).is_final:
        raise Conflict("The render has ended: one that failed can be tried again.")
    return find_render(session, render_id=render_id, user_id=user_id)


def retry_for_owner(
    session: Session, *, render_id: str, allowance: Allowance, request_id: str | None
) -> RenderView:
    """As `retry_render`, for a render of any user: the new one is its user's, made with nobody's key."""
    return retry_render(
        session,
        render_id=render_id,
        user_id=_owner(session, render_id),
        allowance=allowance,
        request_id=request_id,
    )


def find_any_render(session: Session, *, render_id: str) -> RenderView:
    """Whosever it is. Raises NotFound for an unknown render."""
    return find_render(session, render_id=render_id, user_id=_owner(session, render_id))


def _owner(session: Session, render_id: str) -> str:
    user_id = administration_queries.owner_of(session, render_id=render_id)
    if user_id is None:
        raise NotFound("Render not found")
    return user_id
