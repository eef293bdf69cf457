"""The ways of results to their destinations: begun, claimed, ended, and shown in their renders."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import insert, not_, select, update
from sqlalchemy.orm import Session

from app.destinations.tables import Destination
from app.platform.database import database_now, read_clock
from app.platform.json_values import timestamp
from app.platform.lease import Lease, changed_rows, claim_first
from app.renders import webhook_events
from app.renders.statuses import DestinationStatus
from app.renders.tables import Render
from app.webhooks.statuses import WebhookEvent

_EVENTS = {
    DestinationStatus.DELIVERED: WebhookEvent.DELIVERED,
    DestinationStatus.FAILED: WebhookEvent.DELIVERY_FAILED,
}


@dataclass(frozen=True, kw_only=True)
class DueDestination:
    """One that can be claimed. `attempt` is the number of its attempts so far; `is_failing`: the last one failed."""

    id: str
    user_id: str
    attempt: int
    is_failing: bool


def _lock_render(session: Session, render_id: str) -> None:
    """First in each transaction that changes both, as in one that deletes the render."""
    session.execute(select(Render.id).where(Render.id == render_id).with_for_update())


def begin(session: Session, *, render_id: str) -> None:
    """Have the output of the render, which was just completed, sent to its destination, if it has one."""
    user_id, url = session.execute(
        select(Render.user_id, Render.destination).where(Render.id == render_id)
    ).one()
    if url is None:
        return
    values = {"id": render_id, "user_id": user_id, "status": DestinationStatus.PENDING.value}
    due = {"retry_at": database_now(), "attempt": 0, "failures": 0}
    session.execute(insert(Destination).values(**values, **due))


def begin_again(session: Session, *, render_id: str) -> bool:
    """Make it due now, whatever became of it. False if it does not exist, or is being sent."""
    _lock_render(session, render_id)
    idle = update(Destination).where(Destination.id == render_id, Destination.lease_expires_at.is_(None))
    values = {"status": DestinationStatus.PENDING.value, "retry_at": database_now(), "failures": 0}
    if not changed_rows(session, idle.values(**values)):
        return False
    show(session, render_id, DestinationStatus.PENDING)
    return True


def due_destinations(
    session: Session, *, limit: int, but_users: Collection[str], but_failing: bool
) -> Sequence[DueDestination]:
    """Up to `limit`, the longest due first, but those of these users and, on request, those that are failing."""
    is_failing = Destination.failures > 0
    query = select(
        Destination.id, Destination.user_id, Destination.attempt, is_failing.label("is_failing")
    ).where(Destination.retry_at <= database_now())
    if but_users:
        query = query.where(Destination.user_id.not_in(but_users))
    if but_failing:
        query = query.where(not_(is_failing))
    rows = session.execute(query.order_by(Destination.retry_at, Destination.id).limit(limit))
    return [DueDestination(**row) for row in rows.mappings()]


def claim(session: Session, due: DueDestination, *, lease_seconds: float) -> bool:
    """Lease it for its next attempt. False when another process was faster."""
    _lock_render(session, due.id)
    own = select(Destination.id).where(
        Destination.id == due.id,
        Destination.attempt == due.attempt,
        Destination.retry_at <= database_now(),
    )
    until = database_now(plus_seconds=lease_seconds)
    status = DestinationStatus.DELIVERING
    claiming = claim_first(Destination, own, seconds=lease_seconds, retry_at=until, status=status.value)
    if not changed_rows(session, claiming):
        return False
    show(session, due.id, status)
    return True


def end(session: Session, lease: Lease, status: DestinationStatus, *, message: str | None) -> bool:
    """End the attempt and the way, and tell webhooks of it. False when the lease is lost."""
    _lock_render(session, lease.row_id)
    if not lease.release(session, status=status.value):
        return False
    show(session, lease.row_id, status, message=message)
    webhook_events.write(session, render_id=lease.row_id, event=_EVENTS[status])
    return True


def postpone(session: Session, lease: Lease, *, rest_seconds: float, failed: bool, message: str) -> bool:
    """End the attempt; another begins after a rest. False when the lease is lost."""
    _lock_render(session, lease.row_id)
    failures = Destination.failures + (1 if failed else 0)
    status = DestinationStatus.PENDING
    if not lease.release(session, rest_seconds=rest_seconds, status=status.value, failures=failures):
        return False
    show(session, lease.row_id, status, message=message)
    return True


def show(session: Session, render_id: str, status: DestinationStatus, *, message: str | None = None) -> None:
    """Record what the render shows of it from now on."""
    attempts = session.scalar(select(Destination.attempt).where(Destination.id == render_id))
    state = {"status": status.value, "attempts": attempts, "message": message}
    if status is DestinationStatus.DELIVERED:
        state["delivered_at"] = timestamp(read_clock(session))
    changed_rows(session, update(Render).where(Render.id == render_id).values(destination_state=state))
