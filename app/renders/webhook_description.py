"""The OpenAPI description of the requests that this server sends: webhook events."""

import re
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header
from pydantic import Field

from app.http.body import Body, Timestamp, with_example
from app.renders.schemas import RENDER_EXAMPLE, Render
from app.webhooks.schemas import RenderEvent
from app.webhooks.statuses import WebhookEvent

ANSWERS: dict[int | str, dict[str, Any]] = {
    "default": {"description": "Any other answer, or none: the event is sent again, for three days."},
    410: {"description": "The receiver no longer exists: the webhook is disabled."},
}
_MOMENT = "2026-11-22T07:34:22.516Z"
DELIVERED = "Any answer from 200 to 299: the event is delivered."


class RenderEventData(Body):
    render: Render = Field(description="As `GET /v1/renders/{render_id}` answered at the time of the event.")


class RenderEventBody(Body):
    model_config = with_example(
        {"type": "render.completed", "timestamp": _MOMENT, "data": {"render": RENDER_EXAMPLE}}
    )

    type: RenderEvent
    timestamp: Timestamp = Field(description="When it happened.")
    data: RenderEventData


class NamedWebhook(Body):
    id: str


class TestEventData(Body):
    webhook: NamedWebhook


class TestEventBody(Body):
    model_config = with_example(
        {"type": "webhook.test", "timestamp": _MOMENT, "data": {"webhook": {"id": "r4XqUeB0kT2yWmPz"}}}
    )

    type: Literal[WebhookEvent.TEST]
    timestamp: Timestamp = Field(description="If you requested it.")
    data: TestEventData


def sent_headers(
    webhook_id: Annotated[
        str, Header(alias="webhook-id", description="The same each time the event is sent.")
    ],
    webhook_timestamp: Annotated[
        int, Header(alias="webhook-timestamp", description="Time of sending, in seconds since 1970.")
    ],
    webhook_signature: Annotated[
        str,
        Header(
            alias="webhook-signature",
            description="As in Standard Webhooks: `v1,` and a signature, one for each valid secret.",
        ),
    ],
) -> None:
    """The headers of every event."""


def receive_render_event(body: RenderEventBody) -> None:
    """Nothing calls it: what it takes is what a receiver is sent."""


def receive_test_event(body: TestEventBody) -> None:
    """Nothing calls it: what it takes is what a receiver is sent."""


webhooks = APIRouter(tags=["events"], dependencies=[Depends(sent_headers)], responses=ANSWERS)
for _event, _receive, _when in (
    (WebhookEvent.QUEUED, receive_render_event, "A render was requested."),
    (WebhookEvent.PROCESSING, receive_render_event, "A render was read, and is being upscaled."),
    (WebhookEvent.COMPLETED, receive_render_event, "The results of a render are available."),
    (WebhookEvent.FAILED, receive_render_event, "A render failed, or was canceled."),
    (WebhookEvent.DELIVERED, receive_render_event, "The result of a render is at its destination."),
    (WebhookEvent.DELIVERY_FAILED, receive_render_event, "The result could not be sent to its destination."),
    (WebhookEvent.TEST, receive_test_event, "You asked for it."),
):
    webhooks.add_api_route(
        _event.value,
        _receive,
        methods=["POST"],
        operation_id="on" + "".join(word.capitalize() for word in re.split("[._]", _event.value)),
        summary=_when,
        description=_when,
        response_description=DELIVERED,
    )
