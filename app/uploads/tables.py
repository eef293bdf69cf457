"""The table of uploads in parts."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from app.accounts.tables import User
from app.platform.tables import ListedTable, partial_index


class Upload(ListedTable):
    """An upload in parts.

    `file_id` is the id of its file once it is completed; the object is stored under that file's key.
    `multipart_id` is the storage's name of the upload. It has ended if `completed_at` or `aborted_at` is set,
    or after `expires_at`. From `cleaned_at` on, one that did not become a file has no bytes in storage.
    """

    __tablename__ = "uploads"
    __table_args__ = (
        Index("ix_uploads_user_id_created_at", "user_id", "created_at", "id"),
        partial_index(
            "ix_uploads_not_cleaned", "expires_at", where="completed_at IS NULL AND cleaned_at IS NULL"
        ),
    )

    user_id: Mapped[str] = mapped_column(ForeignKey(User.id))
    file_id: Mapped[str] = mapped_column(String(32), unique=True)
    name: Mapped[str] = mapped_column(String(255))
    size_bytes: Mapped[int]
    part_size_bytes: Mapped[int]
    multipart_id: Mapped[str] = mapped_column(String(1024))
    expires_at: Mapped[datetime]
    completed_at: Mapped[datetime | None]
    aborted_at: Mapped[datetime | None]
    cleaned_at: Mapped[datetime | None]
