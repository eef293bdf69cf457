"""Previews: as users see them, and as workers claim them. Every move is one compare-and-set on the row."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import ColumnElement, CursorResult, Update, and_, case, func, or_, select, update
from sqlalchemy import delete as delete_from
from sqlalchemy.orm import Session, joinedload

from app.platform.database import database_now
from app.platform.pages import Page, read_page
from app.platform.secrets import is_id
from app.previews.tables import Preview
from app.renders.statuses import RenderStatus


@dataclass(frozen=True, kw_only=True)
class PreviewClaim:
    """One preview in one worker's hands."""

    preview_id: str
    attempt: int


def find_preview(session: Session, *, preview_id: str, user_id: str) -> Preview | None:
    """The user's own preview of that id, with its file; another user's is not found."""
    if not is_id(preview_id):
        return None
    query = select(Preview).options(joinedload(Preview.file))
    return session.scalar(query.where(Preview.id == preview_id, Preview.user_id == user_id))


def list_previews(session: Session, *, user_id: str, limit: int, cursor: str | None) -> Page[Preview]:
    """The user's own previews, with their files."""
    query = select(Preview).options(joinedload(Preview.file)).where(Preview.user_id == user_id)
    return read_page(session, query, Preview, limit=limit, cursor=cursor)


def count_open(session: Session, *, user_id: str) -> int:
    """How many of the user's previews have not ended."""
    query = select(func.count()).select_from(Preview)
    return session.scalar(query.where(Preview.ended_at.is_(None), Preview.user_id == user_id)) or 0


def is_ended(session: Session, *, preview_id: str) -> bool:
    """Whether it has ended, or is gone."""
    query = select(Preview.id).where(Preview.id == preview_id, Preview.ended_at.is_(None))
    return session.scalar(query) is None


def any_waits(session: Session) -> bool:
    """Whether there is one to claim. Cheap: an index holds those that have not ended, and no others."""
    return session.scalar(select(Preview.id).where(_waits()).limit(1)) is not None


def claim(session: Session, *, worker: str, lease_seconds: float) -> PreviewClaim | None:
    """The oldest that waits, or whose worker was not heard of for a lease; that counts as a failure of it."""
    chosen = (
        select(Preview.id)
        .where(_waits())
        .order_by(Preview.created_at, Preview.id)
        .limit(1)
        .with_for_update(skip_locked=True)
        .correlate(None)
        .scalar_subquery()
    )
    row = session.execute(
        update(Preview)
        .where(Preview.id == chosen)
        .values(
            status=RenderStatus.PROCESSING,
            attempt=Preview.attempt + 1,
            # Who ends its work in good order takes its lease along.
            failures=Preview.failures + _one_if(Preview.lease_expires_at.is_not(None)),
            worker=worker,
            lease_expires_at=database_now(plus_seconds=lease_seconds),
            retry_at=None,
        )
        .returning(Preview.id, Preview.attempt)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    return None if row is None else PreviewClaim(preview_id=row[0], attempt=row[1])


def get_preview(session: Session, *, preview_id: str) -> Preview | None:
    """With its file; None when it was deleted meanwhile."""
    query = select(Preview).options(joinedload(Preview.file)).where(Preview.id == preview_id)
    return session.scalar(query)


def renew(session: Session, claim: PreviewClaim, *, lease_seconds: float) -> bool:
    """False when the preview is no longer this claim's."""
    return _changed(session, _own(claim).values(lease_expires_at=database_now(plus_seconds=lease_seconds)))


def complete(session: Session, claim: PreviewClaim, *, values: dict[str, Any]) -> bool:
    """May be asked again by the same claim, whose commit went through without an answer."""
    changed = _changed(session, _own(claim).values(**_ended(RenderStatus.COMPLETED), **values))
    return changed or _was_completed(session, claim)


def fail(session: Session, claim: PreviewClaim, *, error: str) -> bool:
    return _changed(session, _own(claim).values(**_ended(RenderStatus.FAILED), error=error))


def count_failure(session: Session, claim: PreviewClaim) -> int | None:
    """Of its attempts so far, this one included; None when it is not this claim's."""
    statement = _own(claim).values(failures=Preview.failures + 1).returning(Preview.failures)
    return session.execute(statement.execution_options(synchronize_session=False)).scalar_one_or_none()


def give_back(session: Session, claim: PreviewClaim, *, rest_seconds: float = 0.0) -> None:
    """For another attempt, once it has rested."""
    retry_at = database_now(plus_seconds=rest_seconds) if rest_seconds else None
    _changed(session, _own(claim).values(lease_expires_at=None, worker=None, retry_at=retry_at))


def withdraw(session: Session, *, preview_id: str, error: str) -> None:
    """End it, and give its images to nobody any more. A late worker finds that it is not its own."""
    statement = update(Preview).where(Preview.id == preview_id)
    session.execute(
        statement.values(
            status=RenderStatus.FAILED,
            error=error,
            ended_at=func.coalesce(Preview.ended_at, database_now()),
            before_key=None,
            after_key=None,
            lease_expires_at=None,
        ).execution_options(synchronize_session=False)
    )


def delete(session: Session, *, preview_id: str) -> None:
    """Its row. The images went before."""
    statement = delete_from(Preview).where(Preview.id == preview_id)
    session.execute(statement.execution_options(synchronize_session=False))


def due_to_remove(
    session: Session, *, made_for: float, limit: int, but: Collection[str] = ()
) -> Sequence[str]:
    """Ids of those that were made that long ago, the oldest first, ended or not."""
    query = select(Preview.id).where(_is_old(made_for), Preview.id.not_in(but))
    return session.scalars(query.order_by(Preview.created_at).limit(limit)).all()


def count_to_remove(session: Session, *, made_for: float) -> int:
    query = select(func.count()).select_from(Preview).where(_is_old(made_for))
    return session.scalar(query) or 0


def known_previews(session: Session, ids: Iterable[str]) -> dict[str, frozenset[str] | None]:
    """Those of the ids that are previews, with the keys of their images; None while it has not ended."""
    columns = (Preview.id, Preview.ended_at, Preview.before_key, Preview.after_key)
    rows = session.execute(select(*columns).where(Preview.id.in_(ids)))
    return {
        row_id: None if ended_at is None else frozenset(filter(None, keys))
        for row_id, ended_at, *keys in rows
    }


def _is_old(made_for: float) -> ColumnElement[bool]:
    return Preview.created_at < database_now(plus_seconds=-made_for)


def _waits() -> ColumnElement[bool]:
    is_free = or_(Preview.lease_expires_at.is_(None), Preview.lease_expires_at < database_now())
    is_rested = or_(Preview.retry_at.is_(None), Preview.retry_at < database_now())
    return and_(Preview.ended_at.is_(None), is_free, is_rested)


def _one_if(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return case((condition, 1), else_=0)


def _own(claim: PreviewClaim) -> Update:
    return update(Preview).where(
        Preview.id == claim.preview_id,
        Preview.attempt == claim.attempt,
        Preview.ended_at.is_(None),
        Preview.lease_expires_at.is_not(None),
    )


def _ended(status: RenderStatus) -> dict[str, Any]:
    return {"status": status, "ended_at": database_now(), "lease_expires_at": None, "worker": None}


def _was_completed(session: Session, claim: PreviewClaim) -> bool:
    query = select(Preview.id).where(
        Preview.id == claim.preview_id,
        Preview.attempt == claim.attempt,
        Preview.status == RenderStatus.COMPLETED,
    )
    return session.scalar(query) is not None


def _changed(session: Session, statement: Update) -> bool:
    result = session.execute(statement.execution_options(synchronize_session=False))
    return cast(CursorResult[Any], result).rowcount == 1
