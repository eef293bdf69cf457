"""Sends results to their destinations again."""

from sqlalchemy.orm import Session

from app.destinations import queries
from app.destinations.ledger import REMOVED
from app.platform.errors import Conflict
from app.renders.service import get_render
from app.renders.statuses import RenderStatus
from app.renders.tables import Render


def deliver_again(
    session: Session, *, render_id: str, user_id: str, destination: str | None = None
) -> Render:
    """Send the render's output to its destination again, at once, or to another one, which becomes the render's.

    What is being sent just now stays as it is. Raises NotFound for an unknown render and another user's, Conflict for
    one without a destination or a result, and for another destination while the result is being sent.
    """
    queries.lock_render(session, render_id)
    render = get_render(session, render_id=render_id, user_id=user_id)
    if render.destination is None:
        raise Conflict("The render was made without a `destination`.")
    if render.status is not RenderStatus.COMPLETED:
        raise Conflict("The render is not completed, so there is no result to send.")
    if render.files_removed_at is not None:
        raise Conflict(REMOVED)
    is_asked = queries.begin_again(session, render_id=render_id)
    if destination is not None and not is_asked:
        raise Conflict("The result is being sent just now. Give another `destination` when that has ended.")
    render.destination = destination or render.destination
    session.flush()
    session.expire(render)
    return get_render(session, render_id=render_id, user_id=user_id)
