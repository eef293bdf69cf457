"""The table of results on their way to their users' destinations."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from app.accounts.tables import User
from app.platform.lease import Leased
from app.platform.tables import Table
from app.renders.tables import Render


class Destination(Leased, Table):
    """The way of one completed render's output to the URL in `Render.destination`. `id` is that of the render.

    `retry_at` is when the next attempt is due, the end of the lease during an attempt, and None once it has ended.
    `failures` counts those since the render was completed, or sent again. What users see of it is
    `Render.destination_state`, which changes in the same transactions.
    """

    __tablename__ = "destinations"
    __table_args__ = (
        Index(
            "ix_destinations_due",
            "due_at",
            sqlite_where=text("due_at IS NOT NULL"),
            postgresql_where=text("due_at IS NOT NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(ForeignKey(Render.id, ondelete="CASCADE"), primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey(User.id), index=True)
    status: Mapped[str] = mapped_column(String(16))
    retry_at: Mapped[datetime | None] = mapped_column("due_at")
