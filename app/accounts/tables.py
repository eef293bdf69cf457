"""The tables of users, their keys, and the requests that they may repeat."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, String, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.platform.tables import ListedTable, Table


class User(ListedTable):
    """`served_at` is when a segment of the user was last claimed, `prepared_at` when a render of theirs was claimed to
    be prepared: whose turn is longest ago is next.

    `max_running_segments` and `max_running_renders` are the user's own caps, above or below the settings'. `limits` are
    their other limits. `webhook_secret_generation` says which secret signs their webhooks.
    """

    __tablename__ = "users"

    name: Mapped[str] = mapped_column(String(200), unique=True)
    served_at: Mapped[datetime | None]
    prepared_at: Mapped[datetime | None]
    max_running_segments: Mapped[int | None]
    max_running_renders: Mapped[int | None]
    limits: Mapped[dict[str, Any] | None]
    webhook_secret_generation: Mapped[int] = mapped_column(default=0, server_default="0")
    webhook_secret_rotated_at: Mapped[datetime | None]


class ApiKey(ListedTable):
    """An API key: only its keyed hash is kept. `hint` is its first characters, for telling keys apart."""

    __tablename__ = "api_keys"

    user_id: Mapped[str] = mapped_column(ForeignKey(User.id), index=True)
    name: Mapped[str] = mapped_column(String(200))
    hint: Mapped[str] = mapped_column(String(16))
    digest: Mapped[str] = mapped_column(String(64), unique=True)
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

    user_id: Mapped[str] = mapped_column(ForeignKey(User.id), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    made_id: Mapped[str] = mapped_column(String(32))
    created_at: Mapped[datetime] = mapped_column(index=True)
