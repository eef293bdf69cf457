"""The tables of renders and of their segments."""

from datetime import datetime
from fractions import Fraction
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, String, Text, UniqueConstraint, false
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.accounts.tables import User
from app.files.tables import File
from app.platform.lease import LeasedToWorker
from app.platform.media.containers import ContainerName, VideoCodec
from app.platform.media.info import VideoProperties
from app.platform.media.picture_options import Deinterlace
from app.platform.media.rates import Retime
from app.platform.tables import ListedTable, StatusText, Table, partial_index, video_columns
from app.renders.statuses import RenderStatus, SegmentStatus


class UnitOfWork(LeasedToWorker):
    """Columns of rows that workers claim.

    `outages` counts attempts that ended in an outage, the last at `postponed_at`; `lone_outages` those in a
    row between which other work was done. `expiries` counts attempts whose lease expired.
    """

    outages: Mapped[int] = mapped_column(default=0, server_default="0")
    lone_outages: Mapped[int] = mapped_column(default=0, server_default="0")
    postponed_at: Mapped[datetime | None]
    expiries: Mapped[int] = mapped_column(default=0, server_default="0")


class Render(UnitOfWork, ListedTable):
    """A user's job.

    It is leased to be prepared and to be finished; the counts of attempts start again for each. `input` and `output`
    hold expected values at first, and measured ones once the render is prepared and completed. Only workers interpret
    `plan`. While its video is still being read, `unplanned_frames` is the probable number of frames for the network
    in addition to those in its segments; None before and after. `started_at` is when a worker first
    took it from the queue, None in rows of earlier versions, `ended_at` when it was completed or failed; from
    `files_removed_at` on, its results are no longer available, and once they are removed from storage it has no keys of
    them. `cleaned_at` is when the remains of its work were removed. `request_id` is that of the
    request for the render, so that its lines in all logs can be found, `trace_parent` the span of that request,
    `api_key_id` its key. `webhook_url` receives only this render's events.
    `destination` is the URL, a secret, to which its output is sent, `destination_state` what users see of that, from
    its completion on. `retry_of` is the failed render that this one retries; it may have been deleted since.
    `start_seconds` and `end_seconds` bound the part of the file
    that is rendered, `input` is that part. `scale` or `max_width` and `max_height` decide the output's size;
    `strength` is how much of the network's picture it holds, `grain` how much of the input's noise,
    `stabilise` how far it is averaged over time; `codec`,
    `container` and `output_quality` are as requested. At
    `cancel_at`, `cancel_after` seconds after its request, a render that has not ended is canceled. `user_metadata` are
    texts of its user. `measures_quality` is whether the finish compares the output with the input; `quality` is the
    result, as the API shows it, `encoded_quality` what the search for a target of VMAF found. Once prepared, a render
    that can be watched before it is completed has `segment_times` (`SegmentTimes`) and is `is_watchable`; `sound_key`
    is the stored sound that goes with them, None if there is none. `precision` is the number format of the network in
    which its first worker began to upscale it.
    """

    __tablename__ = "renders"
    __table_args__ = (
        Index("ix_renders_status_created_at", "status", "created_at"),
        Index("ix_renders_user_id_created_at", "user_id", "created_at", "id"),
        # Covers the figures of activity, which read no row.
        Index("ix_renders_activity", "ended_at", "created_at", "started_at", "status", "output_frames"),
        Index("ix_renders_user_id_status", "user_id", "status", "priority", "created_at"),
        partial_index("ix_renders_not_cleaned", "ended_at", where="cleaned_at IS NULL"),
        partial_index(
            "ix_renders_with_results", "files_removed_at", "ended_at", where="output_key IS NOT NULL"
        ),
    )

    user_id: Mapped[str] = mapped_column(ForeignKey(User.id), index=True)
    file_id: Mapped[str] = mapped_column(ForeignKey(File.id), index=True)
    engine: Mapped[str] = mapped_column(String(40))
    target_fps: Mapped[Fraction | None]
    target_fps_sent: Mapped[float | None]
    retime: Mapped[Retime] = mapped_column(
        StatusText(Retime), default=Retime.NEAREST, server_default=Retime.NEAREST
    )
    start_seconds: Mapped[Fraction | None]
    end_seconds: Mapped[Fraction | None]
    scale: Mapped[int | None]
    max_width: Mapped[int | None]
    max_height: Mapped[int | None]
    strength: Mapped[float] = mapped_column(default=1.0, server_default="1")
    grain: Mapped[float] = mapped_column(default=0.0, server_default="0")
    stabilise: Mapped[int] = mapped_column(default=0, server_default="0")
    deinterlace: Mapped[Deinterlace] = mapped_column(
        StatusText(Deinterlace), default=Deinterlace.AUTO, server_default=Deinterlace.AUTO
    )
    codec: Mapped[VideoCodec | None] = mapped_column(String(16))
    container: Mapped[ContainerName | None] = mapped_column(String(16))
    output_quality: Mapped[str | None] = mapped_column(String(16))
    user_metadata: Mapped[dict[str, Any] | None]
    cancel_after: Mapped[int | None]
    cancel_at: Mapped[datetime | None]
    measures_quality: Mapped[bool] = mapped_column(default=False, server_default=false())
    status: Mapped[RenderStatus] = mapped_column(StatusText(RenderStatus))
    completed_at: Mapped[datetime | None]
    error: Mapped[str | None] = mapped_column(Text)
    warnings: Mapped[list[str]]
    quality: Mapped[dict[str, Any] | None]
    encoded_quality: Mapped[dict[str, Any] | None]
    cost: Mapped[float]

    input: Mapped[VideoProperties] = video_columns("input_")
    output: Mapped[VideoProperties] = video_columns("output_")

    plan: Mapped[str | None] = mapped_column(Text)
    precision: Mapped[str | None] = mapped_column(String(40))
    unplanned_frames: Mapped[int | None]
    output_key: Mapped[str | None] = mapped_column(String(200))
    output_bytes: Mapped[int | None]
    thumbnail_key: Mapped[str | None] = mapped_column(String(200))
    is_watchable: Mapped[bool] = mapped_column(default=False, server_default=false())
    # Ten bytes for each segment, which only playlists read.
    segment_times: Mapped[dict[str, Any] | None] = mapped_column(deferred=True)
    sound_key: Mapped[str | None] = mapped_column(String(200))
    request_id: Mapped[str | None] = mapped_column(String(64))
    api_key_id: Mapped[str | None] = mapped_column(String(32))
    trace_parent: Mapped[str | None] = mapped_column(String(55))
    webhook_url: Mapped[str | None] = mapped_column(Text)
    destination: Mapped[str | None] = mapped_column(Text)
    destination_state: Mapped[dict[str, Any] | None]
    priority: Mapped[int] = mapped_column(default=0, server_default="0")
    retry_of: Mapped[str | None] = mapped_column(String(32))
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    files_removed_at: Mapped[datetime | None]
    cleaned_at: Mapped[datetime | None]

    lease_expires_at: Mapped[datetime | None] = mapped_column("work_lease_expires_at")

    file: Mapped[File] = relationship()
    segments: Mapped[list["Segment"]] = relationship(order_by="Segment.position", back_populates="render")


class Segment(UnitOfWork, Table):
    """A run of frames of one render, leased to be upscaled. Once done it keeps `worker`, and has a `precision`
    and, if its quality was searched, the `crf` that was chosen and the `vmaf` of the sample with it;
    `filtered_pairs` is what was measured of its filter."""

    __tablename__ = "segments"
    __table_args__ = (
        UniqueConstraint("render_id", "position"),
        Index("ix_segments_status_created_at", "status", "created_at"),
        Index("ix_segments_render_id_status", "render_id", "status", "position"),
        # Small ones, which PostgreSQL prefers even with old statistics: rows rarely stay in these statuses.
        partial_index("ix_segments_waiting", "render_id", "position", where="status = 'waiting'"),
        partial_index("ix_segments_running", "render_id", where="status = 'running'"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    render_id: Mapped[str] = mapped_column(ForeignKey(Render.id, ondelete="CASCADE"))
    position: Mapped[int]
    status: Mapped[SegmentStatus] = mapped_column(StatusText(SegmentStatus))
    created_at: Mapped[datetime]
    plan: Mapped[str] = mapped_column(Text)
    frames: Mapped[int]
    frames_done: Mapped[int] = mapped_column(default=0)
    storage_key: Mapped[str | None] = mapped_column(String(200))
    precision: Mapped[str | None] = mapped_column(String(40))
    crf: Mapped[float | None]
    vmaf: Mapped[float | None]
    filtered_pairs: Mapped[list[list[float | None]] | None] = mapped_column(JSON(none_as_null=True))

    render: Mapped[Render] = relationship(back_populates="segments")
