"""The tables of users, API keys and idempotency keys."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, String, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.platform.tables import ListedTable, Table


class User(ListedTable):
    """A user. `served_at` is the last claim of one of the user's segments, `prepared_at` and `finished_at` those of a
    render to prepare and to finish: the user with the oldest time is served next.

    `max_running_segments` and `max_running_renders` override the settings' caps. `limits` has the user's other limits.
    `webhook_secret_generation` selects the secret that signs the user's webhooks.
    """

    __tablename__ = "users"

    name: Mapped[str] = mapped_column(String(200), unique=True)
    served_at: Mapped[datetime | None]
    prepared_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    max_running_segments: Mapped[int | None]
    max_running_renders: Mapped[int | None]
    limits: Mapped[dict[str, Any] | None]
    webhook_secret_generation: Mapped[int] = mapped_column(default=0, server_default="0")
    webhook_secret_rotated_at: Mapped[datetime | None]


class ApiKey(ListedTable):
    """An API key; only its keyed hash is stored. `hint` is its first characters, to tell keys apart."""

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
    """The key of a request that made something; `fingerprint` identifies the request."""

    __tablename__ = "idempotency_keys"

    user_id: Mapped[str] = mapped_column(ForeignKey(User.id), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    made_id: Mapped[str] = mapped_column(String(32))
    created_at: Mapped[datetime] = mapped_column(index=True)
