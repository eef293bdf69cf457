"""The events that webhooks report, and the statuses of a delivery."""

from enum import StrEnum


class WebhookEvent(StrEnum):
    QUEUED = "render.queued"
    PROCESSING = "render.processing"
    COMPLETED = "render.completed"
    FAILED = "render.failed"
    DELIVERED = "render.delivered"
    DELIVERY_FAILED = "render.delivery_failed"
    TEST = "webhook.test"


# The events that an endpoint can subscribe to.
RENDER_EVENTS = tuple(event for event in WebhookEvent if event is not WebhookEvent.TEST)


class DeliveryStatus(StrEnum):
    """`pending` until it has ended; a replay makes it pending again."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
