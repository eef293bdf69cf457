"""What users are to be told of a render is written down in the transaction that moves it: neither is there alone."""

from datetime import datetime
from enum import Enum
from fractions import Fraction
from typing import Any

from sqlalchemy import and_, bindparam, insert, select
from sqlalchemy.orm import Session

from app.platform import clock
from app.platform.database import UtcDateTime, database_now
from app.platform.secrets import new_id
from app.platform.tables import ExactFraction, StatusText
from app.renders import queries as render_queries
from app.renders.statuses import RenderStatus
from app.renders.tables import Render
from app.webhooks.statuses import DeliveryStatus, WebhookEvent
from app.webhooks.tables import WebhookDelivery, WebhookEndpoint
from app.webhooks.urls import host_of

# What is nobody's business, or is looked up when the event is sent.
_NOT_FACTS = frozenset(
    {
        "plan",
        "output_key",
        "thumbnail_key",
        "request_id",
        "api_key_id",
        "ended_at",
        "files_removed_at",
        "cleaned_at",
        "attempt",
        "failures",
        "outages",
        "expiries",
        "worker",
        "work_lease_expires_at",
        "retry_at",
    }
)
_FACTS = tuple(column for column in Render.__table__.columns if column.name not in _NOT_FACTS)

# One statement, made once: of most renders nobody is to be told.
_LISTENERS = (
    select(
        Render.user_id, Render.webhook_url, WebhookEndpoint.id, WebhookEndpoint.url, WebhookEndpoint.events
    )
    .outerjoin(
        WebhookEndpoint,
        and_(WebhookEndpoint.user_id == Render.user_id, WebhookEndpoint.disabled_at.is_(None)),
    )
    .where(Render.id == bindparam("render_id"))
    .order_by(WebhookEndpoint.created_at, WebhookEndpoint.id)
)


def write_event(session: Session, *, render_id: str, status: RenderStatus) -> None:
    """A delivery for each address that is to be told that the render has moved to `status` just now."""
    event = WebhookEvent(f"render.{status.value}")
    addresses: list[tuple[str | None, str]] = []
    listeners = session.execute(_LISTENERS, {"render_id": render_id}).all()
    user_id, own_url = listeners[0][:2]
    if own_url is not None:
        addresses.append((None, own_url))
    for *_, endpoint_id, url, events in listeners:
        if endpoint_id is not None and event in events:
            addresses.append((endpoint_id, url))
    if not addresses:
        return
    facts = _facts(session, render_id=render_id, user_id=user_id, status=status)
    for told_id, url in addresses:
        add_delivery(
            session,
            user_id=user_id,
            endpoint_id=told_id,
            render_id=render_id,
            url=url,
            event=event,
            facts=facts,
        )


def add_delivery(
    session: Session,
    *,
    user_id: str,
    endpoint_id: str | None,
    render_id: str | None,
    url: str,
    event: WebhookEvent,
    facts: dict[str, Any],
) -> str:
    """A delivery that is due at once. Returns its id."""
    delivery_id = new_id()
    session.execute(
        insert(WebhookDelivery).values(
            id=delivery_id,
            user_id=user_id,
            endpoint_id=endpoint_id,
            render_id=render_id,
            url=url,
            host=host_of(url),
            event=event.value,
            facts=facts,
            status=DeliveryStatus.PENDING.value,
            created_at=clock.now(),
            due_at=database_now(),
            attempts=0,
            failures=0,
        )
    )
    return delivery_id


def render_of(facts: dict[str, Any]) -> Render:
    """The render as it was at the event, as a row of no session's."""
    written: dict[str, Any] = facts["render"]
    return Render(
        **{
            column.name: _read(column.type, written[column.name])
            for column in _FACTS
            if column.name in written
        }
    )


def _facts(session: Session, *, render_id: str, user_id: str, status: RenderStatus) -> dict[str, Any]:
    """What the API shows of the render, but for its URLs."""
    row = session.execute(select(*_FACTS).where(Render.id == render_id)).one()._mapping
    facts: dict[str, Any] = {"render": {column.name: _written(row[column.name]) for column in _FACTS}}
    if status is RenderStatus.QUEUED:
        places = render_queries.queue_positions(session, user_id=user_id, render_ids=[render_id])
        facts["queue_position"] = places.get(render_id, 1)
    if status is RenderStatus.FAILED:
        frames = render_queries.frames_done(session, render_ids=[render_id]).get(render_id)
        facts["progress"] = frames.done / frames.total if frames and frames.total else 0.0
    return facts


def _written(value: Any) -> Any:
    """As JSON keeps it."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Fraction):
        return str(value)
    return value.value if isinstance(value, Enum) else value


def _read(column_type: Any, value: Any) -> Any:
    if value is None:
        return None
    if isinstance(column_type, UtcDateTime):
        return datetime.fromisoformat(value)
    if isinstance(column_type, ExactFraction):
        return Fraction(value)
    return column_type.enum(value) if isinstance(column_type, StatusText) else value
