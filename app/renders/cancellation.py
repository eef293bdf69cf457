"""Cancels renders that have not ended, and deletes those that have."""

from sqlalchemy.orm import Session

from app.platform.database import Database
from app.platform.errors import Conflict
from app.platform.storage.contract import Storage
from app.platform.storage.keys import render_prefix
from app.renders import queries as render_queries
from app.renders.service import get_render
from app.renders.statuses import RenderStatus
from app.renders.tables import Render
from app.renders.transitions import fail_render

CANCELED = "Canceled"


def cancel_render(session: Session, *, render_id: str, user_id: str) -> Render:
    """End the user's unfinished render as failed.

    Returns one that had already failed unchanged. A worker that holds it learns this from its next heartbeat, and its
    result is refused. Raises NotFound for an unknown render and another user's, Conflict for a completed one.
    """
    before = get_render(session, render_id=render_id, user_id=user_id)
    fail_render(session, render_id=render_id, error=CANCELED)
    # Another process may have ended it since it was read.
    session.expire(before)
    render = get_render(session, render_id=render_id, user_id=user_id)
    if render.status is RenderStatus.COMPLETED:
        raise Conflict("The render is already completed: it can be deleted, but not canceled.")
    return render


def delete_render(database: Database, storage: Storage, *, render_id: str, user_id: str) -> None:
    """Delete the user's ended render: first its links, then its files, last its rows.

    A crash in between leaves a render without files, which can be deleted again. A late worker may still
    store an object without a row, which the clean-up finds. Raises NotFound for an unknown render and another
    user's, Conflict for one that has not ended, StorageError when the files cannot be removed.
    """
    with database.write() as session:
        render = get_render(session, render_id=render_id, user_id=user_id)
        if not render.status.is_final:
            raise Conflict("The render has not ended: cancel it first.")
        render_queries.stop_giving_out(session, render_id=render_id)
    storage.delete_all([stored.key for stored in storage.list(render_prefix(render_id))])
    with database.write() as session:
        render_queries.delete_render(session, render_id=render_id)
