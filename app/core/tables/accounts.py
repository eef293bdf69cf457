"""Users, their keys, and what they used."""

from datetime import date, datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, String, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.core.tables.base import Table


class User(Table):
    """`served_at` is when a segment of the user was last claimed, `prepared_at` when a render of theirs was claimed to
    be prepared: whose turn is longest ago is next.

    `max_running_segments` and `max_running_renders` are the user's own caps, above or below the settings'. `limits` are
    their other limits. `webhook_secret_generation` says which secret signs their webhooks.
    """

    __tablename__ = "users"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    created_at: Mapped[datetime]
    served_at: Mapped[datetime | None]
    prepared_at: Mapped[datetime | None]
    max_running_segments: Mapped[int | None]
    max_running_renders: Mapped[int | None]
    limits: Mapped[dict[str, Any] | None]
    webhook_secret_generation: Mapped[int] = mapped_column(default=0, server_default="0")
    webhook_secret_rotated_at: Mapped[datetime | None]


class ApiKey(Table):
    """An API key: only its keyed hash is kept. `hint` is its first characters, for telling keys apart."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), index=True)
    name: Mapped[str] = mapped_column(String(200))
    hint: Mapped[str] = mapped_column(String(16))
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    scopes: Mapped[list[str]] = mapped_column(
        JSON(), default=lambda: ["read", "write"], server_default=text("""'["read", "write"]'""")
    )
    limits: Mapped[dict[str, Any] | None]
    last_used_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]

    user: Mapped[User] = relationship()


class IdempotencyKey(Table):
    """A key that a user gave a request which made something; `fingerprint` tells what was asked for."""

    __tablename__ = "idempotency_keys"

    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    made_id: Mapped[str] = mapped_column(String(32))
    created_at: Mapped[datetime] = mapped_column(index=True)


class DailyUsage(Table):
    """What the renders of one key completed on one day (UTC), by engine. It stays when the renders are deleted.

    `gigapixels` are the outputs' frames times their pixels in units of 1e9, `cost` that times the engine's multiplier.
    """

    __tablename__ = "daily_usage"

    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    engine: Mapped[str] = mapped_column(String(40), primary_key=True)
    api_key_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    renders: Mapped[int]
    gigapixels: Mapped[float]
    cost: Mapped[float]
