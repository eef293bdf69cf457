"""Rows of webhooks as clients see them."""

from collections.abc import Sequence

from app.webhooks import schemas as webhook_schemas
from app.webhooks.service import SigningSecrets
from app.webhooks.statuses import DeliveryStatus, WebhookEvent
from app.webhooks.tables import WebhookAttempt, WebhookDelivery, WebhookEndpoint


def webhook_of(row: WebhookEndpoint) -> webhook_schemas.Webhook:
    return webhook_schemas.Webhook(
        id=row.id,
        url=row.url,
        events=row.events,
        enabled=row.disabled_at is None,
        created_at=row.created_at,
        disabled_at=row.disabled_at,
        disabled_reason=row.disabled_reason,
        failing_since=row.failing_since,
    )


def delivery_of(
    row: WebhookDelivery, *, attempts: Sequence[WebhookAttempt] | None = None
) -> webhook_schemas.WebhookDelivery:
    """`attempts` are shown where they are given."""
    rests = row.retry_at is not None and row.lease_expires_at is None
    return webhook_schemas.WebhookDelivery(
        id=row.id,
        webhook_id=row.endpoint_id,
        render_id=row.render_id,
        url=row.url,
        event=WebhookEvent(row.event),
        status=DeliveryStatus(row.status),
        created_at=row.created_at,
        next_attempt_at=row.retry_at if rests else None,
        ended_at=row.ended_at,
        attempt_count=row.attempt,
        attempts=None if attempts is None else [_attempt_of(attempt) for attempt in attempts],
    )


def secret_of(secrets: SigningSecrets) -> webhook_schemas.WebhookSecret:
    return webhook_schemas.WebhookSecret(
        current=secrets.current,
        previous=secrets.before,
        previous_until=secrets.before_until,
    )


def _attempt_of(row: WebhookAttempt) -> webhook_schemas.WebhookAttempt:
    return webhook_schemas.WebhookAttempt(
        number=row.number,
        at=row.at,
        duration_seconds=round(row.duration_seconds, 3),
        status_code=row.status_code,
        error=row.error,
    )
