"""Queries of previews, for users and for workers."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_, select, true, update
from sqlalchemy import delete as delete_from
from sqlalchemy.orm import Session, aliased, joinedload

from app.platform.database import count_changed, database_now
from app.platform.lease import Lease, claim_first, is_expired, is_rested, revoke
from app.platform.pagination import Page, read_page
from app.platform.secrets import is_id
from app.previews.tables import Preview
from app.renders.statuses import RenderStatus

LATELY_SECONDS = 600


@dataclass(frozen=True, kw_only=True)
class PreviewClaim:
    """Identifies one attempt at one preview, held by one worker."""

    preview_id: str
    attempt: int

    @property
    def lease(self) -> Lease:
        return Lease(Preview, self.preview_id, self.attempt)


def find_preview(session: Session, *, preview_id: str, user_id: str) -> Preview | None:
    """The user's preview with that id, with its file. None for another user's."""
    if not is_id(preview_id):
        return None
    query = select(Preview).options(joinedload(Preview.file))
    return session.scalar(query.where(Preview.id == preview_id, Preview.user_id == user_id))


def list_previews(session: Session, *, user_id: str, limit: int, cursor: str | None) -> Page[Preview]:
    """A page of the user's previews, with their files."""
    query = select(Preview).options(joinedload(Preview.file)).where(Preview.user_id == user_id)
    return read_page(session, query, Preview, limit=limit, cursor=cursor)


def count_open(session: Session, *, user_id: str) -> int:
    """How many of the user's previews have not ended."""
    query = select(func.count()).select_from(Preview)
    return session.scalar(query.where(Preview.ended_at.is_(None), Preview.user_id == user_id)) or 0


def is_ended(session: Session, *, preview_id: str) -> bool:
    """Whether the preview has ended or was deleted."""
    query = select(Preview.id).where(Preview.id == preview_id, Preview.ended_at.is_(None))
    return session.scalar(query) is None


def warnings_of(session: Session, *, preview_id: str) -> Sequence[str]:
    """The preview's warnings; none if it was deleted."""
    return session.scalars(select(Preview.warnings).where(Preview.id == preview_id)).one_or_none() or ()


def any_waits(session: Session, *, engines: Collection[str] = (), beside_user: str | None = None) -> bool:
    """Whether there is a claimable preview with one of these engines; empty for all. With `beside_user`, one
    of another user. Cheap: an index holds only those that have not ended."""
    waiting = select(Preview.id).where(_waits(), _is_of(engines)).limit(1)
    if beside_user is not None:
        waiting = waiting.where(Preview.user_id != beside_user)
    return session.scalar(waiting) is not None


def rest(session: Session, *, user_id: str, seconds: float) -> None:
    """Keep the user's waiting previews from being claimed for so long."""
    waiting = update(Preview).where(Preview.user_id == user_id, _waits())
    count_changed(session, waiting.values(retry_at=database_now(plus_seconds=seconds)))


def claim(
    session: Session, *, worker: str, lease_seconds: float, engines: Collection[str] = ()
) -> PreviewClaim | None:
    """Lease a preview that waits, or whose lease has expired, which counts as a failure.

    The next is the oldest of the user with the fewest previews begun recently: slow previews delay only their
    own user's.
    """
    others = aliased(Preview)
    begun = (
        select(func.count())
        .where(
            others.user_id == Preview.user_id,
            others.attempt > 0,
            others.created_at > database_now(plus_seconds=-LATELY_SECONDS),
        )
        .correlate(Preview)
        .scalar_subquery()
    )
    waiting = (
        select(Preview.id).where(_waits(), _is_of(engines)).order_by(begun, Preview.created_at, Preview.id)
    )
    row = session.execute(
        claim_first(
            Preview, waiting, seconds=lease_seconds, worker=worker, status=RenderStatus.PROCESSING
        ).returning(Preview.id, Preview.attempt)
    ).one_or_none()
    return None if row is None else PreviewClaim(preview_id=row[0], attempt=row[1])


def get_preview(session: Session, *, preview_id: str) -> Preview | None:
    """The preview with its file; None when it was deleted."""
    query = select(Preview).options(joinedload(Preview.file)).where(Preview.id == preview_id)
    return session.scalar(query)


def complete(session: Session, claim: PreviewClaim, *, values: dict[str, Any]) -> bool:
    """Move the preview to `completed`. False when the lease is lost.

    May be repeated by the same claim, if a commit succeeded without an answer.
    """
    changed = claim.lease.release(session, status=RenderStatus.COMPLETED, ended_at=database_now(), **values)
    return changed or claim.lease.has_left(session, status=RenderStatus.COMPLETED)


def fail(session: Session, claim: PreviewClaim, *, error: str) -> None:
    """Move the preview to `failed`. Does nothing when the lease is lost."""
    claim.lease.release(session, status=RenderStatus.FAILED, ended_at=database_now(), error=error)


def withdraw(session: Session, *, preview_id: str, error: str) -> None:
    """End the preview and remove its images' keys, whichever worker holds it."""
    revoke(
        session,
        Preview,
        Preview.id == preview_id,
        status=RenderStatus.FAILED,
        error=error,
        ended_at=func.coalesce(Preview.ended_at, database_now()),
        before_key=None,
        after_key=None,
    )


def delete(session: Session, *, preview_id: str) -> None:
    """Delete the row, after the images."""
    statement = delete_from(Preview).where(Preview.id == preview_id)
    session.execute(statement.execution_options(synchronize_session=False))


def due_to_remove(
    session: Session, *, made_for: float, limit: int, but: Collection[str] = ()
) -> Sequence[str]:
    """Ids of previews created at least `made_for` seconds ago, ended or not, the oldest first."""
    query = select(Preview.id).where(_is_old(made_for), Preview.id.not_in(but))
    return session.scalars(query.order_by(Preview.created_at).limit(limit)).all()


def count_to_remove(session: Session, *, made_for: float) -> int:
    query = select(func.count()).select_from(Preview).where(_is_old(made_for))
    return session.scalar(query) or 0


def known_previews(session: Session, ids: Iterable[str]) -> dict[str, frozenset[str] | None]:
    """The ids that are previews, each with its images' keys, or None while it has not ended."""
    columns = (Preview.id, Preview.ended_at, Preview.before_key, Preview.after_key)
    rows = session.execute(select(*columns).where(Preview.id.in_(ids)))
    return {
        row_id: None if ended_at is None else frozenset(filter(None, keys))
        for row_id, ended_at, *keys in rows
    }


def _is_old(made_for: float) -> ColumnElement[bool]:
    return Preview.created_at < database_now(plus_seconds=-made_for)


def _is_of(engines: Collection[str]) -> ColumnElement[bool]:
    return Preview.engine.in_(engines) if engines else true()


def _waits() -> ColumnElement[bool]:
    is_free = or_(Preview.lease_expires_at.is_(None), is_expired(Preview))
    return and_(Preview.ended_at.is_(None), is_free, is_rested(Preview))
