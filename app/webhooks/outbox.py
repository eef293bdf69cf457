"""Writes the deliveries of an event in the transaction that causes it, so that neither exists alone."""

from typing import Any

from sqlalchemy import bindparam, insert, select
from sqlalchemy.orm import Session

from app.platform.database import database_now
from app.platform.secrets import new_id
from app.webhooks.statuses import DeliveryStatus, WebhookEvent
from app.webhooks.tables import WebhookDelivery, WebhookEndpoint
from app.webhooks.urls import host_of

# Built once: every change of a render runs it.
_ENDPOINTS = (
    select(WebhookEndpoint.id, WebhookEndpoint.url, WebhookEndpoint.events)
    .where(WebhookEndpoint.user_id == bindparam("user_id"), WebhookEndpoint.disabled_at.is_(None))
    .order_by(WebhookEndpoint.created_at, WebhookEndpoint.id)
)


def addresses(
    session: Session, *, user_id: str, event: WebhookEvent, own_url: str | None
) -> list[tuple[str | None, str]]:
    """The receivers of the event, as pairs of an endpoint's id and a URL: `own_url` with None, if given, and each of
    the user's endpoints that subscribes to the event.
    """
    endpoints = session.execute(_ENDPOINTS, {"user_id": user_id})
    return [
        *([] if own_url is None else [(None, own_url)]),
        *((endpoint_id, url) for endpoint_id, url, events in endpoints if event in events),
    ]


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
    """Add a delivery that is due at once. Returns its id.

    `facts["data"]` is the event's data. `facts["links"]` has the stored files whose URLs are signed and added when it
    is sent: a `storage_key` and a `file_name` by the JSON name of the field.
    """
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
            created_at=database_now(),
            retry_at=database_now(),
            attempt=0,
            failures=0,
        )
    )
    return delivery_id
