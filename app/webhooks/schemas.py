"""Wire shapes of webhooks, deliveries and secrets."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StrictBool, field_validator

from app.http.body import Body, Number, RequestBody, Timestamp, Url, only, with_example
from app.platform.outbound import MOST_URL_CHARACTERS
from app.webhooks import tables
from app.webhooks.service import SigningSecrets
from app.webhooks.statuses import RENDER_EVENTS, DeliveryStatus, WebhookEvent

RenderEvent = Literal[
    WebhookEvent.QUEUED,
    WebhookEvent.PROCESSING,
    WebhookEvent.COMPLETED,
    WebhookEvent.FAILED,
    WebhookEvent.DELIVERED,
    WebhookEvent.DELIVERY_FAILED,
]
Events = Annotated[
    list[RenderEvent],
    Field(min_length=1, max_length=2 * len(RENDER_EVENTS), description="The events of your renders to send."),
]
WebhookUrl = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MOST_URL_CHARACTERS,
        json_schema_extra={"format": "uri", "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://"},
        description="An http or https address, without user name and password.",
    ),
]

_URL = "https://studio.example.com/hooks/regen"
_WEBHOOK = {
    "id": "r4XqUeB0kT2yWmPz",
    "url": _URL,
    "events": ["render.completed", "render.failed"],
    "enabled": True,
    "createdAt": "2026-11-22T07:33:38.047Z",
}
_DELIVERY = {
    "id": "5sHnC1vQzLw9dKfA",
    "webhookId": "r4XqUeB0kT2yWmPz",
    "renderId": "VxIlYTomwGfEp0D3",
    "url": _URL,
    "event": "render.completed",
    "status": "pending",
    "createdAt": "2026-11-22T07:34:22.516Z",
    "nextAttemptAt": "2026-11-22T07:34:28.102Z",
    "attemptCount": 1,
}
_ATTEMPT = {
    "number": 1,
    "at": "2026-11-22T07:34:22.931Z",
    "durationSeconds": 0.042,
    "statusCode": 502,
    "error": "It answered 502.",
}


class WebhookRequest(RequestBody):
    model_config = only({"url": _URL, "events": ["render.completed", "render.failed"]})

    url: WebhookUrl
    events: Events = Field(default_factory=lambda: list(RENDER_EVENTS), validate_default=True)
    enabled: StrictBool = True

    @field_validator("events", mode="before")
    @classmethod
    def _all_if_empty(cls, events: object) -> object:
        # Some generated clients send an empty list for a field that was not set.
        return list(RENDER_EVENTS) if events == [] else events


class WebhookChange(RequestBody):
    """What is left out stays as it is."""

    model_config = only({"enabled": True})

    url: WebhookUrl | None = None
    events: Events | None = None
    enabled: StrictBool | None = None


class Webhook(Body):
    id: str
    url: Url
    events: list[RenderEvent]
    enabled: bool
    created_at: Timestamp
    disabled_at: Timestamp | None = Field(None, description="While it is not enabled.")
    disabled_reason: str | None = Field(None, description="A sentence, if the server disabled it.")
    failing_since: Timestamp | None = Field(
        None, description="While attempts fail: the time of the first failure since the last success."
    )

    @classmethod
    def of(cls, endpoint: tables.WebhookEndpoint) -> Self:
        return cls(
            id=endpoint.id,
            url=endpoint.url,
            events=[WebhookEvent(event) for event in endpoint.events],
            enabled=endpoint.disabled_at is None,
            created_at=endpoint.created_at,
            disabled_at=endpoint.disabled_at,
            disabled_reason=endpoint.disabled_reason,
            failing_since=endpoint.failing_since,
        )


class WebhookBody(Body):
    model_config = with_example({"webhook": _WEBHOOK})

    webhook: Webhook


class WebhooksBody(Body):
    """A page, the newest first."""

    model_config = with_example({"webhooks": [_WEBHOOK]})

    webhooks: list[Webhook]
    next_cursor: str | None = Field(None, description="For the next page; left out on the last.")


class WebhookAttempt(Body):
    """The result of one attempt."""

    number: int = Field(description="Grows with each attempt. An attempt that a crash cut off is missing.")
    at: Timestamp = Field(description="When it ended.")
    duration_seconds: Annotated[Number, AfterValidator(partial(round, ndigits=3))]
    status_code: int | None = Field(None, description="Of the receiver's answer, if there was one.")
    error: str | None = Field(None, description="A sentence, if it was not delivered.")


class WebhookDelivery(Body):
    id: str = Field(description="The `webhook-id` of every attempt.")
    webhook_id: str | None = Field(None, description="Left out for a render's own `webhook_url`.")
    render_id: str | None = Field(None, description="Left out for a test.")
    url: Url
    event: WebhookEvent
    status: DeliveryStatus = Field(
        description="`pending` until it is `delivered`, or `failed` once it is given up."
    )
    created_at: Timestamp
    next_attempt_at: Timestamp | None = Field(None, description="While another attempt is due.")
    ended_at: Timestamp | None = Field(None, description="When delivered or failed.")
    attempt_count: int
    attempts: list[WebhookAttempt] | None = Field(None, description="Left out in lists.")

    @classmethod
    def of(
        cls, delivery: tables.WebhookDelivery, *, attempts: Sequence[tables.WebhookAttempt] | None = None
    ) -> Self:
        """`attempts` are shown if they are given."""
        waits = delivery.lease_expires_at is None
        return cls(
            id=delivery.id,
            webhook_id=delivery.endpoint_id,
            render_id=delivery.render_id,
            url=delivery.url,
            event=WebhookEvent(delivery.event),
            status=DeliveryStatus(delivery.status),
            created_at=delivery.created_at,
            next_attempt_at=delivery.retry_at if waits else None,
            ended_at=delivery.ended_at,
            attempt_count=delivery.attempt,
            attempts=None if attempts is None else [*map(WebhookAttempt.model_validate, attempts)],
        )


class WebhookDeliveryBody(Body):
    model_config = with_example({"delivery": {**_DELIVERY, "attempts": [_ATTEMPT]}})

    delivery: WebhookDelivery


class WebhookDeliveriesBody(Body):
    """A page, the newest first."""

    model_config = with_example({"deliveries": [_DELIVERY], "nextCursor": "AAZG2u3Z0IA1c0huQzF2UXpMdzlkS2ZB"})

    deliveries: list[WebhookDelivery]
    next_cursor: str | None = Field(None, description="For the next page; left out on the last.")


class WebhookSecret(Body):
    """The secrets that sign your events."""

    current: str
    previous: str | None = Field(None, description="The previous secret, while it also signs.")
    previous_until: Timestamp | None = Field(None, description="How long it does.")

    @classmethod
    def of(cls, secrets: SigningSecrets) -> Self:
        return cls(current=secrets.current, previous=secrets.before, previous_until=secrets.before_until)


class WebhookSecretBody(Body):
    model_config = with_example(
        {"secret": {"current": "whsec_bm90IGEgc2VjcmV0IGJ1dCBhbiBleGFtcGxlIG9mIG9uZQ=="}}
    )

    secret: WebhookSecret
