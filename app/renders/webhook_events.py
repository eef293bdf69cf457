"""Writes webhook events for a render's changes, in the transaction that makes the change."""

from dataclasses import asdict, is_dataclass
from typing import Any

from pydantic.alias_generators import to_camel
from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload

from app.platform.json_values import shown
from app.renders import queries as render_queries
from app.renders.progress import progress
from app.renders.representation import links, shown_fields
from app.renders.statuses import RenderStatus
from app.renders.tables import Render
from app.webhooks import outbox
from app.webhooks.statuses import WebhookEvent


def write_event(session: Session, *, render_id: str, status: RenderStatus) -> None:
    """Write a delivery for each address that receives events of the render, which has just changed to `status`."""
    write(session, render_id=render_id, event=WebhookEvent(f"render.{status.value}"))


def write(session: Session, *, render_id: str, event: WebhookEvent) -> None:
    """The same for an event that is no change of its status."""
    user_id, webhook_url = session.execute(
        select(Render.user_id, Render.webhook_url).where(Render.id == render_id)
    ).one()
    addresses = outbox.addresses(session, user_id=user_id, event=event, own_url=webhook_url)
    if not addresses:
        return
    # Updates of this transaction may have bypassed a row that the session had loaded before.
    query = select(Render).where(Render.id == render_id).options(joinedload(Render.file))
    render = session.execute(query, execution_options={"populate_existing": True}).scalar_one()
    facts = {
        "data": {"render": _json(_fields(session, render))},
        "links": {name: asdict(link) for name, link in links(render).items()},
    }
    for endpoint_id, url in addresses:
        outbox.add_delivery(
            session,
            user_id=user_id,
            endpoint_id=endpoint_id,
            render_id=render_id,
            url=url,
            event=event,
            facts=facts,
        )


def _fields(session: Session, render: Render) -> dict[str, Any]:
    queue_position, frames = None, None
    if render.status is RenderStatus.QUEUED:
        places = render_queries.queue_positions(session, user_id=render.user_id, render_ids=[render.id])
        queue_position = places.get(render.id, 1)
    if render.status is RenderStatus.FAILED:
        frames = render_queries.frames_done(session, render_ids=[render.id]).get(render.id)
    return shown_fields(render, progress=progress(render.status, frames), queue_position=queue_position)


def _json(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields as the API writes them, without those that are None."""
    return {to_camel(name): _json_value(value) for name, value in fields.items() if value is not None}


def _json_value(value: Any) -> Any:
    return _json(asdict(value)) if is_dataclass(value) and not isinstance(value, type) else shown(value)
