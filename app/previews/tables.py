"""Previews: single moments of a file, before and after."""

from datetime import datetime
from fractions import Fraction

from sqlalchemy import ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.accounts.tables import User
from app.files.tables import File
from app.platform.lease import LeasedToWorker
from app.platform.media.picture_options import Deinterlace
from app.platform.tables import ListedTable, StatusText, partial_index
from app.renders.statuses import RenderStatus


class Preview(LeasedToWorker, ListedTable):
    """One moment of a file, upscaled ahead of all renders.

    The crop is in pixels of the frame as displayed. For a completed preview None means the whole frame; before, that
    the worker will choose. `scale`, `max_width`, `max_height`, `strength`, `grain`, `stabilise` and `deinterlace` are
    as for a render of the whole frame. The status is never `pending`. An expired lease counts among its `failures`.
    """

    __tablename__ = "previews"
    __table_args__ = (
        Index("ix_previews_user_id_created_at", "user_id", "created_at", "id"),
        partial_index("ix_previews_open", "created_at", where="ended_at IS NULL"),
    )

    user_id: Mapped[str] = mapped_column(ForeignKey(User.id))
    file_id: Mapped[str] = mapped_column(ForeignKey(File.id), index=True)
    engine: Mapped[str] = mapped_column(String(40))
    at_seconds: Mapped[Fraction]
    crop_x: Mapped[int | None]
    crop_y: Mapped[int | None]
    crop_width: Mapped[int | None]
    crop_height: Mapped[int | None]
    scale: Mapped[int | None]
    max_width: Mapped[int | None]
    max_height: Mapped[int | None]
    strength: Mapped[float] = mapped_column(default=1.0, server_default="1")
    grain: Mapped[float] = mapped_column(default=0.0, server_default="0")
    stabilise: Mapped[int] = mapped_column(default=0, server_default="0")
    deinterlace: Mapped[str] = mapped_column(
        String(16), default=Deinterlace.AUTO, server_default=Deinterlace.AUTO
    )
    status: Mapped[RenderStatus] = mapped_column(StatusText(RenderStatus))
    error: Mapped[str | None] = mapped_column(Text)
    warnings: Mapped[list[str]]
    before_key: Mapped[str | None] = mapped_column(String(200))
    after_key: Mapped[str | None] = mapped_column(String(200))
    ended_at: Mapped[datetime | None]

    file: Mapped[File] = relationship()
