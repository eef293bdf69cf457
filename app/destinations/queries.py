"""The ways of results to their destinations: begun, claimed, ended, and shown in their renders."""

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from app.destinations.tables import Destination
from app.platform.database import database_now, read_clock
from app.platform.deliveries import DueDelivery, ask_again, claim_due
from app.platform.json_values import timestamp
from app.platform.lease import Lease, changed_rows
from app.renders import webhook_events
from app.renders.statuses import DestinationStatus
from app.renders.tables import Render
from app.webhooks.statuses import WebhookEvent

_EVENTS = {
    DestinationStatus.DELIVERED: WebhookEvent.DELIVERED,
    DestinationStatus.FAILED: WebhookEvent.DELIVERY_FAILED,
}


def lock_render(session: Session, render_id: str) -> None:
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
    """As `ask_again`."""
    lock_render(session, render_id)
    if not ask_again(session, Destination, render_id):
        return False
    show(session, render_id, DestinationStatus.PENDING)
    return True


def claim(session: Session, due: DueDelivery, *, lease_seconds: float) -> bool:
    """As `claim_due`."""
    lock_render(session, due.id)
    status = DestinationStatus.DELIVERING
    if not claim_due(session, Destination, due, lease_seconds=lease_seconds, status=status.value):
        return False
    show(session, due.id, status)
    return True


def end(session: Session, lease: Lease, status: DestinationStatus, *, message: str | None) -> bool:
    """End the attempt and the way, and tell webhooks of it. False when the lease is lost."""
    lock_render(session, lease.row_id)
    if not lease.release(session, status=status.value):
        return False
    show(session, lease.row_id, status, message=message)
    webhook_events.write(session, render_id=lease.row_id, event=_EVENTS[status])
    return True


def postpone(
    session: Session, lease: Lease, *, rest_seconds: float, failed: bool, message: str | None
) -> bool:
    """End the attempt; another begins after a rest. False when the lease is lost."""
    lock_render(session, lease.row_id)
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
