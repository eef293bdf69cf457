"""What a webhook is sent: the event's body, and the headers that prove where it comes from (Standard Webhooks)."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import floor
from typing import Any

from sqlalchemy.orm import Session, joinedload
from standardwebhooks import Webhook

from app.files.tables import File
from app.http.body import timestamp
from app.http.resources import Resources
from app.renders.service import RenderView
from app.renders.statuses import RenderStatus
from app.renders.tables import Render
from app.renders.views import view_of
from app.webhooks.delivery import ClaimedDelivery
from app.webhooks.outbox import render_of

NO_URLS = {"input_file_url": None, "output_file_url": None, "thumbnail_url": None}


@dataclass(frozen=True, kw_only=True)
class OutgoingEvent:
    """One request to a receiver."""

    url: str
    body: bytes
    headers: dict[str, str] = field(repr=False)


def outgoing_event(
    session: Session, claimed: ClaimedDelivery, *, resources: Resources, base_url: str | None
) -> OutgoingEvent:
    """The delivery's request, signed now with each of its user's valid secrets.

    `base_url` is where clients reach the API. Without one, URLs that the API itself would serve are left out.
    """
    body = json.dumps(
        {
            "type": claimed.event.value,
            "timestamp": timestamp(claimed.created_at),
            "data": _data(session, claimed, resources=resources, base_url=base_url),
        },
        ensure_ascii=False,
        separators=(",", ":"),
    )
    # The receiver compares it with its own clock, whatever time our answers show.
    now = datetime.now(UTC)
    signatures = [Webhook(secret).sign(claimed.id, now, body) for secret in claimed.secrets.valid]
    return OutgoingEvent(
        url=claimed.url,
        body=body.encode(),
        headers={
            "Content-Type": "application/json",
            "webhook-id": claimed.id,
            "webhook-timestamp": str(floor(now.timestamp())),
            "webhook-signature": " ".join(signatures),
        },
    )


def _data(
    session: Session, claimed: ClaimedDelivery, *, resources: Resources, base_url: str | None
) -> dict[str, Any]:
    if claimed.render_id is None:
        return {"webhook": {"id": claimed.endpoint_id}}
    return {"render": _render(session, claimed, resources=resources, base_url=base_url)}


def _render(
    session: Session, claimed: ClaimedDelivery, *, resources: Resources, base_url: str | None
) -> dict[str, Any]:
    """As `GET /v1/renders/{id}` answered at the event, with URLs signed now; without any once it was deleted."""
    render = render_of(claimed.facts)
    progress = 1.0 if render.status is RenderStatus.COMPLETED else claimed.facts.get("progress", 0.0)
    view = RenderView(
        render=render, queue_position=claimed.facts.get("queue_position"), progress=float(progress)
    )
    current = session.get(Render, render.id, options=[joinedload(Render.file)])
    if current is None:
        render.file = File(name="", removed_at=claimed.created_at)
        shown = view_of(view, resources=resources, base_url="")
        shown = shown.model_copy(update=NO_URLS | {"files_removed_at": None})
    else:
        render.file = current.file
        render.output_key, render.thumbnail_key = current.output_key, current.thumbnail_key
        render.files_removed_at = current.files_removed_at
        shown = view_of(view, resources=resources, base_url=base_url or "")
        if base_url is None and resources.settings.storage == "local":
            shown = shown.model_copy(update=NO_URLS)
    return shown.model_dump(mode="json", by_alias=True, exclude_none=True)
