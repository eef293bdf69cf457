"""The deliveries of an event, written in the transaction that makes it happen: neither is there alone."""

from typing import Any

from sqlalchemy import bindparam, insert, select
from sqlalchemy.orm import Session

from app.platform import clock
from app.platform.database import database_now
from app.platform.secrets import new_id
from app.webhooks.statuses import DeliveryStatus, WebhookEvent
from app.webhooks.tables import WebhookDelivery, WebhookEndpoint
from app.webhooks.urls import host_of

# Made once: most users have no endpoints, and every change of a render asks.
_ENDPOINTS = (
    select(WebhookEndpoint.id, WebhookEndpoint.url, WebhookEndpoint.events)
    .where(WebhookEndpoint.user_id == bindparam("user_id"), WebhookEndpoint.disabled_at.is_(None))
    .order_by(WebhookEndpoint.created_at, WebhookEndpoint.id)
)


def addresses(
    session: Session, *, user_id: str, event: WebhookEvent, own_url: str | None
) -> list[tuple[str | None, str]]:
    """Who is told of the event: `own_url`, if given, and each of the user's endpoints that subscribes to it.

    Pairs of an endpoint's id (None for `own_url`) and a URL.
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
    """Write a delivery that is due at once: `facts["data"]` is what is sent. Returns its id.

    `facts["links"]` are the stored files whose URLs are signed and added when it is sent, by the JSON name of the
    field: each a `storage_key` and a `file_name`.
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
            created_at=clock.now(),
            retry_at=database_now(),
            attempt=0,
            failures=0,
        )
    )
    return delivery_id
