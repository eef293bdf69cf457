"""Renders of any user, and everything that belongs to one user."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.accounts.tables import ApiKey, IdempotencyKey, User
from app.destinations.tables import Destination
from app.files.tables import File
from app.platform.secrets import is_id
from app.platform.storage.keys import preview_prefix, render_prefix
from app.previews.tables import Preview
from app.renders.tables import Render
from app.uploads.tables import Upload
from app.usage.tables import DailyUsage
from app.webhooks.tables import WebhookDelivery, WebhookEndpoint

# Each before those that its rows refer to.
TABLES_OF_USERS = (
    WebhookDelivery,
    WebhookEndpoint,
    Preview,
    Destination,
    Render,
    Upload,
    File,
    DailyUsage,
    IdempotencyKey,
    ApiKey,
)


@dataclass(frozen=True, kw_only=True)
class StoredObjects:
    """`keys` of objects, `prefixes` of others, and the ids of file and storage of each open `uploads`."""

    keys: Sequence[str]
    prefixes: Sequence[str]
    uploads: Sequence[tuple[str, str]]


def owner_of(session: Session, *, render_id: str) -> str | None:
    """The id of the render's user; None if there is no such render."""
    if not is_id(render_id):
        return None
    return session.scalar(select(Render.user_id).where(Render.id == render_id))


def stored_by(session: Session, *, user_id: str) -> StoredObjects:
    renders = session.scalars(select(Render.id).where(Render.user_id == user_id))
    previews = session.scalars(select(Preview.id).where(Preview.user_id == user_id))
    uploads = session.execute(
        select(Upload.file_id, Upload.multipart_id).where(
            Upload.user_id == user_id, Upload.completed_at.is_(None), Upload.cleaned_at.is_(None)
        )
    )
    return StoredObjects(
        keys=session.scalars(select(File.storage_key).where(File.user_id == user_id)).all(),
        prefixes=[*map(render_prefix, renders), *map(preview_prefix, previews)],
        uploads=[(file_id, multipart_id) for file_id, multipart_id in uploads],
    )


def delete_with_rows(session: Session, *, user_id: str) -> None:
    for table in TABLES_OF_USERS:
        session.execute(
            delete(table).where(table.user_id == user_id).execution_options(synchronize_session=False)
        )
    session.execute(delete(User).where(User.id == user_id).execution_options(synchronize_session=False))
