"""What webhooks tell of a render, and the statuses of a delivery."""

from enum import StrEnum


class WebhookEvent(StrEnum):
    """What a webhook may be told."""

    QUEUED = "render.queued"
    PROCESSING = "render.processing"
    COMPLETED = "render.completed"
    FAILED = "render.failed"
    TEST = "webhook.test"


# Those that an endpoint can subscribe to.
RENDER_EVENTS = tuple(event for event in WebhookEvent if event is not WebhookEvent.TEST)


class DeliveryStatus(StrEnum):
    """`pending`: there will be another attempt. The others are ends, until a replay is asked for."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
