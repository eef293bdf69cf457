"""The table of uploaded videos."""

from datetime import datetime
from fractions import Fraction
from typing import Any

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from app.accounts.tables import User
from app.platform.media.info import VideoProperties
from app.platform.tables import ListedTable, partial_index, video_columns


class File(ListedTable):
    """An uploaded video.

    `video_begins_at`: when the first frame is shown on the file's clock, in seconds; None: unknown, of files of
    earlier versions. `codec`, `pix_fmt`, `transfer` and `sound`, the codecs of its sound tracks, are ffprobe's names,
    None where it has none and for files of earlier versions. `picture_statistics`: of a few frames
    (`PictureStatistics`), None until its first estimate. From `removed_at` on the API does not return the file; at
    `erased_at` its bytes were removed from storage.
    """

    __tablename__ = "files"
    __table_args__ = (
        Index("ix_files_user_id_created_at", "user_id", "created_at", "id"),
        partial_index("ix_files_kept", "removed_at", "created_at", where="erased_at IS NULL"),
    )

    user_id: Mapped[str] = mapped_column(ForeignKey(User.id), index=True)
    name: Mapped[str] = mapped_column(String(255))
    content_type: Mapped[str] = mapped_column(String(100))
    size_bytes: Mapped[int]
    sha256: Mapped[str] = mapped_column(String(64))
    storage_key: Mapped[str] = mapped_column(String(200))
    video: Mapped[VideoProperties] = video_columns()
    video_begins_at: Mapped[Fraction | None]
    codec: Mapped[str | None] = mapped_column(String(40))
    pix_fmt: Mapped[str | None] = mapped_column(String(40))
    transfer: Mapped[str | None] = mapped_column(String(40))
    sound: Mapped[list[str] | None]
    picture_statistics: Mapped[dict[str, Any] | None]
    removed_at: Mapped[datetime | None]
    erased_at: Mapped[datetime | None]
