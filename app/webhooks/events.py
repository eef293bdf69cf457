"""The request that carries an event: its body, and the headers that sign it (Standard Webhooks)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import floor
from typing import Any

from sqlalchemy.orm import Session, joinedload
from standardwebhooks import Webhook

from app.http.resources import Resources
from app.platform.json_values import timestamp
from app.renders.tables import Render
from app.webhooks import earlier_deliveries
from app.webhooks.delivery import ClaimedDelivery


@dataclass(frozen=True, kw_only=True)
class OutgoingEvent:
    """One request to a receiver, signed with each of its user's valid `secrets` at the moment `sent_at`."""

    id: str
    url: str
    body: str
    sent_at: datetime
    secrets: Sequence[str] = field(repr=False)

    @property
    def headers(self) -> dict[str, str]:
        return {
            "Content-Type": "application/json",
            "webhook-id": self.id,
            "webhook-timestamp": str(floor(self.sent_at.timestamp())),
            "webhook-signature": " ".join(
                Webhook(secret).sign(self.id, self.sent_at, self.body) for secret in self.secrets
            ),
        }


def outgoing_event(
    session: Session, claimed: ClaimedDelivery, *, resources: Resources, base_url: str | None
) -> OutgoingEvent:
    """The delivery's request, dated now.

    `base_url` is where clients reach the API. Without it, URLs that the API itself would serve are left out.
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
    return OutgoingEvent(
        id=claimed.id,
        url=claimed.url,
        body=body,
        # The receiver compares it with its own clock, whatever time our answers show.
        sent_at=datetime.now(UTC),
        secrets=claimed.secrets.valid,
    )


def _data(
    session: Session, claimed: ClaimedDelivery, *, resources: Resources, base_url: str | None
) -> dict[str, Any]:
    """The event's data. URLs of a render are signed now, and left out if it was deleted."""
    facts = claimed.facts
    if claimed.render_id is None:
        return dict(facts.get("data", {"webhook": {"id": claimed.endpoint_id}}))
    shown = dict(facts["data"]["render"]) if "data" in facts else earlier_deliveries.render_of(facts)
    render = session.get(Render, claimed.render_id, options=[joinedload(Render.file)])
    if render is None:
        return {"render": shown}
    removed_at = [moment for moment in (render.files_removed_at, render.file.removed_at) if moment]
    if removed_at:
        shown["filesRemovedAt"] = timestamp(min(removed_at))
    if base_url is not None or resources.settings.storage != "local":
        links = facts["links"] if "links" in facts else earlier_deliveries.links_of(facts, render)
        for name, link in links.items():
            is_input = link["storage_key"] == render.file.storage_key
            if (render.file.removed_at if is_input else render.files_removed_at) is None:
                shown[name] = resources.storage.signed_url(
                    link["storage_key"],
                    base_url=base_url or "",
                    file_name=link["file_name"],
                    lifetime_seconds=resources.settings.url_lifetime_seconds,
                )
    return {"render": shown}
