"""Webhook endpoints, deliveries and attempts.

A delivery is claimed by one compare-and-set, which starts an attempt and a lease on the database's clock. Later changes
name that attempt, and change nothing once the row has moved on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, and_, delete, func, or_, select, tuple_, update
from sqlalchemy.orm import Session

from app.accounts.tables import User
from app.platform.database import database_now
from app.platform.deliveries import AttemptResult, Full, due_query
from app.platform.lease import Lease, changed_rows
from app.platform.pagination import Page, read_page
from app.platform.secrets import is_id
from app.webhooks.statuses import DeliveryStatus, WebhookEvent
from app.webhooks.tables import WebhookAttempt, WebhookDelivery, WebhookEndpoint


@dataclass(frozen=True, kw_only=True)
class PostResult(AttemptResult):
    """It is final when the receiver wants no more events: it is gone."""

    duration_seconds: float
    status_code: int | None = None


def find_endpoint(
    session: Session, *, endpoint_id: str, user_id: str, lock: bool = False
) -> WebhookEndpoint | None:
    """The user's own endpoint; `lock` locks its row until the session ends."""
    if not is_id(endpoint_id):
        return None
    query = select(WebhookEndpoint).where(
        WebhookEndpoint.id == endpoint_id, WebhookEndpoint.user_id == user_id
    )
    return session.scalar(query.with_for_update() if lock else query)


def list_endpoints(
    session: Session, *, user_id: str, limit: int, cursor: str | None
) -> Page[WebhookEndpoint]:
    query = select(WebhookEndpoint).where(WebhookEndpoint.user_id == user_id)
    return read_page(session, query, WebhookEndpoint, limit=limit, cursor=cursor)


def count_endpoints(session: Session, *, user_id: str) -> int:
    """The number of the user's endpoints. The lock on the user's row keeps it exact until the session ends."""
    lock_user(session, user_id=user_id)
    query = select(func.count()).select_from(WebhookEndpoint).where(WebhookEndpoint.user_id == user_id)
    return session.scalar(query) or 0


def delete_endpoint(session: Session, *, endpoint_id: str) -> None:
    session.execute(delete(WebhookEndpoint).where(WebhookEndpoint.id == endpoint_id))


def get_user(session: Session, *, user_id: str) -> User:
    return session.get_one(User, user_id)


def lock_user(session: Session, *, user_id: str) -> User:
    # A lock that does not block new rows that refer to the user.
    query = select(User).where(User.id == user_id).with_for_update(key_share=True)
    return session.scalars(query.execution_options(populate_existing=True)).one()


def find_delivery(session: Session, *, delivery_id: str, user_id: str) -> WebhookDelivery | None:
    """As `find_endpoint`."""
    if not is_id(delivery_id):
        return None
    query = select(WebhookDelivery).where(
        WebhookDelivery.id == delivery_id, WebhookDelivery.user_id == user_id
    )
    return session.scalar(query)


def list_deliveries(
    session: Session,
    *,
    user_id: str,
    limit: int,
    cursor: str | None,
    render_id: str | None,
    status: DeliveryStatus | None,
) -> Page[WebhookDelivery]:
    query = select(WebhookDelivery).where(WebhookDelivery.user_id == user_id)
    if render_id is not None:
        query = query.where(WebhookDelivery.render_id == render_id)
    if status is not None:
        query = query.where(WebhookDelivery.status == status.value)
    return read_page(session, query, WebhookDelivery, limit=limit, cursor=cursor)


def attempts_of(session: Session, *, delivery_id: str) -> Sequence[WebhookAttempt]:
    query = select(WebhookAttempt).where(WebhookAttempt.delivery_id == delivery_id)
    return session.scalars(query.order_by(WebhookAttempt.number)).all()


def due_deliveries(session: Session, *, limit: int, full: Full) -> Sequence[Row[Any]]:
    """Rows as fields of `DueDelivery`, the longest due first."""
    is_failing = or_(WebhookDelivery.failures > 0, WebhookEndpoint.failing_since.is_not(None))
    query = due_query(
        WebhookDelivery, WebhookDelivery.host, full=full, limit=limit, is_failing=is_failing
    ).outerjoin(WebhookEndpoint, WebhookEndpoint.id == WebhookDelivery.endpoint_id)
    if full.receivers:
        receiver = tuple_(WebhookDelivery.user_id, WebhookDelivery.host)
        query = query.where(receiver.not_in(full.receivers))
    return session.execute(query).all()


def count_pending_tests(session: Session, *, endpoint_id: str) -> int:
    """The deliveries of WebhookEvent.TEST to the endpoint that have not ended."""
    query = select(func.count()).where(
        WebhookDelivery.endpoint_id == endpoint_id,
        WebhookDelivery.event == WebhookEvent.TEST.value,
        WebhookDelivery.retry_at.is_not(None),
    )
    return session.scalar(query) or 0


def note_attempt(session: Session, lease: Lease, result: PostResult) -> None:
    """Record the result of an attempt whose lease was just released."""
    session.add(
        WebhookAttempt(
            delivery_id=lease.row_id,
            number=lease.attempt,
            at=database_now(),
            duration_seconds=result.duration_seconds,
            status_code=result.status_code,
            error=result.error,
        )
    )
    session.flush()


def end_delivery(session: Session, lease: Lease, status: DeliveryStatus) -> bool:
    """End the delivery and its lease. False when the lease is lost."""
    failed = 1 if status is DeliveryStatus.FAILED else 0
    return lease.release(
        session,
        status=status.value,
        ended_at=database_now(),
        failures=WebhookDelivery.failures + failed,
    )


def redirect_deliveries(session: Session, *, endpoint_id: str, url: str, host: str) -> None:
    """Send the endpoint's pending deliveries to its new address."""
    waiting = and_(WebhookDelivery.endpoint_id == endpoint_id, WebhookDelivery.retry_at.is_not(None))
    changed_rows(session, update(WebhookDelivery).where(waiting).values(url=url, host=host))


def drop_deliveries(session: Session, *, endpoint_id: str) -> None:
    """End the endpoint's pending deliveries as failed, without another attempt."""
    waiting = and_(
        WebhookDelivery.endpoint_id == endpoint_id,
        WebhookDelivery.retry_at.is_not(None),
        # One that is being sent ends with its attempt.
        WebhookDelivery.lease_expires_at.is_(None),
    )
    values = {"status": DeliveryStatus.FAILED.value, "retry_at": None, "ended_at": database_now()}
    changed_rows(session, update(WebhookDelivery).where(waiting).values(**values))


def note_working(session: Session, *, endpoint_id: str) -> None:
    """Record that an attempt at the endpoint succeeded."""
    failing = and_(WebhookEndpoint.id == endpoint_id, WebhookEndpoint.failing_since.is_not(None))
    changed_rows(session, update(WebhookEndpoint).where(failing).values(failing_since=None))


def note_failing(session: Session, *, endpoint_id: str) -> None:
    """Record that an attempt at the endpoint failed."""
    working = and_(WebhookEndpoint.id == endpoint_id, WebhookEndpoint.failing_since.is_(None))
    changed_rows(session, update(WebhookEndpoint).where(working).values(failing_since=database_now()))


def disable_endpoint(
    session: Session, *, endpoint_id: str, reason: str, failing_for: float | None = None
) -> bool:
    """Disable the endpoint; with `failing_for` only if no attempt has succeeded for that many seconds.

    False when it was not disabled now.
    """
    enabled = and_(WebhookEndpoint.id == endpoint_id, WebhookEndpoint.disabled_at.is_(None))
    if failing_for is not None:
        enabled = and_(enabled, WebhookEndpoint.failing_since < database_now(plus_seconds=-failing_for))
    changed = changed_rows(
        session,
        update(WebhookEndpoint).where(enabled).values(disabled_at=database_now(), disabled_reason=reason),
    )
    if changed:
        drop_deliveries(session, endpoint_id=endpoint_id)
    return changed


def forget_deliveries(session: Session, *, ended_for: float, limit: int) -> None:
    """Remove up to `limit` deliveries that ended at least `ended_for` seconds ago, with their attempts."""
    old = (
        select(WebhookDelivery.id)
        .where(WebhookDelivery.ended_at < database_now(plus_seconds=-ended_for))
        .order_by(WebhookDelivery.ended_at)
        .limit(limit)
    )
    session.execute(
        delete(WebhookDelivery)
        .where(WebhookDelivery.id.in_(old))
        .execution_options(synchronize_session=False)
    )
