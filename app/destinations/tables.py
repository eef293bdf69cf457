"""The table of results on their way to their users' destinations."""

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from app.accounts.tables import User
from app.platform.deliveries import Delivery, due_index
from app.platform.tables import Table
from app.renders.tables import Render


class Destination(Delivery, Table):
    """The way of one completed render's output to the URL in `Render.destination`. `id` is that of the render.

    What users see of it is `Render.destination_state`, which changes in the same transactions.
    """

    __tablename__ = "destinations"
    __table_args__ = (due_index("destinations"),)

    id: Mapped[str] = mapped_column(ForeignKey(Render.id, ondelete="CASCADE"), primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey(User.id), index=True)
