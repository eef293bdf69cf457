"""Webhook endpoints, deliveries and attempts.

A delivery is claimed by one compare-and-set, which starts an attempt and a lease on the database's clock. Later changes
name that attempt, and change nothing once the row has moved on.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import and_, delete, func, not_, or_, select, tuple_, update
from sqlalchemy.orm import Session

from app.accounts.tables import User
from app.platform.database import database_now
from app.platform.lease import Lease, changed_rows, claim_first
from app.platform.pagination import Page, read_page
from app.platform.secrets import is_id
from app.webhooks.statuses import DeliveryStatus, WebhookEvent
from app.webhooks.tables import WebhookAttempt, WebhookDelivery, WebhookEndpoint


@dataclass(frozen=True, kw_only=True)
class DueDelivery:
    """A due, claimable delivery. `attempt` is the number of its attempts so far.

    `is_failing`: the last attempt at it, or at its endpoint, failed.
    """

    id: str
    user_id: str
    host: str
    attempt: int
    is_failing: bool


@dataclass(frozen=True, kw_only=True)
class AttemptResult:
    """The result of an attempt. Without `error` it was delivered; `detail` is for the log.

    `is_gone`: the receiver wants no more events. `retry_after_seconds` is the requested pause.
    """

    duration_seconds: float
    status_code: int | None = None
    error: str | None = None
    detail: str | None = None
    is_gone: bool = False
    retry_after_seconds: float | None = None


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


def due_deliveries(
    session: Session,
    *,
    limit: int,
    but_receivers: Collection[tuple[str, str]] = (),
    but_users: Collection[str] = (),
    but_failing: bool = False,
) -> Sequence[DueDelivery]:
    """Up to `limit` deliveries, the longest due first, except those of these receivers (user and host) and of these
    users, and those that are failing."""
    is_failing = or_(WebhookDelivery.failures > 0, WebhookEndpoint.failing_since.is_not(None))
    query = (
        select(
            WebhookDelivery.id,
            WebhookDelivery.user_id,
            WebhookDelivery.host,
            WebhookDelivery.attempt,
            is_failing.label("is_failing"),
        )
        .outerjoin(WebhookEndpoint, WebhookEndpoint.id == WebhookDelivery.endpoint_id)
        .where(WebhookDelivery.retry_at <= database_now())
    )
    if but_receivers:
        receiver = tuple_(WebhookDelivery.user_id, WebhookDelivery.host)
        query = query.where(receiver.not_in(but_receivers))
    if but_users:
        query = query.where(WebhookDelivery.user_id.not_in(but_users))
    if but_failing:
        query = query.where(not_(is_failing))
    rows = session.execute(query.order_by(WebhookDelivery.retry_at, WebhookDelivery.id).limit(limit))
    return [DueDelivery(**row) for row in rows.mappings()]


def count_pending_tests(session: Session, *, endpoint_id: str) -> int:
    """The deliveries of WebhookEvent.TEST to the endpoint that have not ended."""
    query = select(func.count()).where(
        WebhookDelivery.endpoint_id == endpoint_id,
        WebhookDelivery.event == WebhookEvent.TEST.value,
        WebhookDelivery.retry_at.is_not(None),
    )
    return session.scalar(query) or 0


def claim_delivery(session: Session, due: DueDelivery, *, lease_seconds: float) -> bool:
    """Lease the delivery for its next attempt. False when another process was faster."""
    own = select(WebhookDelivery.id).where(
        WebhookDelivery.id == due.id,
        WebhookDelivery.attempt == due.attempt,
        WebhookDelivery.retry_at <= database_now(),
    )
    until = database_now(plus_seconds=lease_seconds)
    return changed_rows(session, claim_first(WebhookDelivery, own, seconds=lease_seconds, retry_at=until))


def note_attempt(session: Session, lease: Lease, result: AttemptResult) -> None:
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


def ask_again(session: Session, *, delivery_id: str) -> None:
    """Make the delivery due now; its attempts stay. Does not change one that is being sent."""
    idle = and_(WebhookDelivery.id == delivery_id, WebhookDelivery.lease_expires_at.is_(None))
    values = {"status": DeliveryStatus.PENDING.value, "retry_at": database_now(), "ended_at": None}
    changed_rows(session, update(WebhookDelivery).where(idle).values(failures=0, **values))


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


@dataclass(frozen=True, kw_only=True)
class WebhookBacklog:
    """`waiting` counts deliveries that have not ended; `overdue_seconds` is how long one of them has been
    due, 0 when dispatchers keep up."""

    waiting: int
    overdue_seconds: float


def webhook_backlog(session: Session) -> WebhookBacklog:
    waiting = select(func.count(), func.min(WebhookDelivery.retry_at), database_now()).where(
        WebhookDelivery.retry_at.is_not(None)
    )
    count, first_due, now = session.execute(waiting).one()
    overdue_seconds = 0.0 if first_due is None else max(0.0, (now - first_due).total_seconds())
    return WebhookBacklog(waiting=count, overdue_seconds=overdue_seconds)
