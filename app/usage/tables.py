"""The table of daily usage."""

from datetime import date

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from app.accounts.tables import User
from app.platform.tables import Table


class DailyUsage(Table):
    """The completed renders of one key on one day (UTC), by engine. Rows stay when renders are deleted.

    `gigapixels`: the outputs' frames times their pixels, divided by 1e9. `cost`: gigapixels times the engine's
    multiplier.
    """

    __tablename__ = "daily_usage"

    user_id: Mapped[str] = mapped_column(ForeignKey(User.id), primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    engine: Mapped[str] = mapped_column(String(40), primary_key=True)
    api_key_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    renders: Mapped[int]
    gigapixels: Mapped[float]
    cost: Mapped[float]
