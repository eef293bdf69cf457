"""Engines that operators added to workers."""

from datetime import datetime

from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from app.platform.tables import Table


class AddedEngine(Table):
    """An engine whose weights an operator added to at least one worker; built-in engines have no row.

    `data_sha256` is the digest of its weights. `seen_at` is when a worker with exactly these weights last reported.
    """

    __tablename__ = "engines"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    description: Mapped[str] = mapped_column(Text)
    cost_multiplier: Mapped[float]
    licence: Mapped[str] = mapped_column(Text)
    data_sha256: Mapped[str] = mapped_column(String(64))
    seen_at: Mapped[datetime]
