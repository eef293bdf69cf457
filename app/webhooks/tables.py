"""The tables of webhook endpoints, deliveries and attempts."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from app.accounts.tables import User
from app.platform.deliveries import Delivery, due_index
from app.platform.tables import ListedTable, Table


class WebhookEndpoint(ListedTable):
    """An address that receives these `events` of all renders of its user.

    `failing_since` is the time of the first failed attempt after the last successful one. `disabled_reason` is a
    sentence when the server disabled the endpoint, None when its user did.
    """

    __tablename__ = "webhook_endpoints"

    user_id: Mapped[str] = mapped_column(ForeignKey(User.id), index=True)
    url: Mapped[str] = mapped_column(Text)
    events: Mapped[list[str]]
    disabled_at: Mapped[datetime | None]
    disabled_reason: Mapped[str | None] = mapped_column(Text)
    failing_since: Mapped[datetime | None]


class WebhookDelivery(Delivery, ListedTable):
    """One event for one address. `id` is the `webhook-id` of every attempt.

    `endpoint_id` is None for a render's own `webhook_url`, `render_id` for a test; `facts`: see `outbox.add_delivery`.
    """

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        Index("ix_webhook_deliveries_user_id_created_at", "user_id", "created_at", "id"),
        due_index("webhook_deliveries"),
    )

    user_id: Mapped[str] = mapped_column(ForeignKey(User.id))
    endpoint_id: Mapped[str | None] = mapped_column(String(32))
    render_id: Mapped[str | None] = mapped_column(String(32), index=True)
    url: Mapped[str] = mapped_column(Text)
    host: Mapped[str] = mapped_column(String(255))
    event: Mapped[str] = mapped_column(String(40))
    facts: Mapped[dict[str, Any]]
    ended_at: Mapped[datetime | None] = mapped_column(index=True)
    attempt: Mapped[int] = mapped_column("attempts", default=0)


class WebhookAttempt(Table):
    """The result of one attempt: the answer's status, or why there was none."""

    __tablename__ = "webhook_attempts"

    delivery_id: Mapped[str] = mapped_column(
        ForeignKey(WebhookDelivery.id, ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    duration_seconds: Mapped[float]
    status_code: Mapped[int | None]
    error: Mapped[str | None] = mapped_column(Text)
