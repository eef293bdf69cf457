"""What OpenAPI says of the requests that this server sends: the events of webhooks."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header
from pydantic import Field

from app.http.body import Body, Timestamp, with_example
from app.renders.schemas import RENDER_EXAMPLE, Render
from app.webhooks.schemas import RenderEvent
from app.webhooks.statuses import WebhookEvent

webhooks = APIRouter()

ANSWERS: dict[int | str, dict[str, Any]] = {
    "default": {"description": "Any other answer, or none: the event is sent again, for three days."},
    410: {"description": "Nobody is there any more: the webhook is disabled."},
}
_MOMENT = "2026-11-22T07:34:22.516Z"
DELIVERED = "Any answer from 200 to 299: the event is delivered."


class RenderEventData(Body):
    render: Render = Field(description="As `GET /v1/renders/{render_id}` answered at the event.")


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
    timestamp: Timestamp = Field(description="When you asked for it.")
    data: TestEventData


def _describe(event: WebhookEvent, when: str, *, body_type: type[Body]) -> None:
    def tell(
        body: object,
        webhook_id: Annotated[
            str, Header(alias="webhook-id", description="The same whenever the event is sent again.")
        ],
        webhook_timestamp: Annotated[
            int, Header(alias="webhook-timestamp", description="When it was sent, in seconds since 1970.")
        ],
        webhook_signature: Annotated[
            str,
            Header(
                alias="webhook-signature",
                description="As Standard Webhooks says: `v1,` and a signature, one for each valid secret.",
            ),
        ],
    ) -> None:
        """Nothing calls it: what it takes is what a receiver is sent."""

    tell.__annotations__["body"] = body_type
    webhooks.add_api_route(
        event.value,
        tell,
        methods=["POST"],
        operation_id="".join(word.capitalize() for word in ("on", *event.value.split("."))).replace(
            "O", "o", 1
        ),
        summary=when,
        description=when,
        response_description=DELIVERED,
        responses=ANSWERS,
    )


for _event, _when in (
    (WebhookEvent.QUEUED, "A render was asked for."),
    (WebhookEvent.PROCESSING, "A render was read, and is being upscaled."),
    (WebhookEvent.COMPLETED, "The results of a render are there."),
    (WebhookEvent.FAILED, "A render failed, or was canceled."),
):
    _describe(_event, _when, body_type=RenderEventBody)
_describe(WebhookEvent.TEST, "You asked for it.", body_type=TestEventBody)
