"""Worker processes, their failed attempts, the periodic tasks, and measured speeds."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, String, Text, false
from sqlalchemy.orm import Mapped, mapped_column

from app.platform.tables import Table
from app.renders.tables import Render


class WorkerProcess(Table):
    """A worker process that runs, or ran until recently. `kind`, `render_id` and `segment_id` are the unit it
    works on.

    `progress_at` is when that unit last made progress, as the worker itself sees it.

    `device_name` is the model of its device, by which its speed is kept (`MeasuredSpeed`). `machine` is
    shared by workers that fail together; None for a worker of an older version. The worker claims nothing
    while `drained_since` (set by an operator) or `quarantined_since` (set by itself) is set. `labels` are an
    operator's; `software` names versions by program (ffmpeg, torch, driver). `lacked_codecs` are those of renders
    for which its ffmpeg has no encoder; `measures_vmaf` is whether its ffmpeg does; `precisions` are those in which it
    upscales, None for a worker of an older version. `failures_in_a_row` counts units that failed since the last one was
    done at `done_at`, the first of them at `first_failed_at`.
    """

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int]
    device: Mapped[str] = mapped_column(String(100))
    device_name: Mapped[str | None] = mapped_column(String(100))
    queues: Mapped[str] = mapped_column(String(20))
    engines: Mapped[list[str]]
    version: Mapped[str] = mapped_column(String(40))
    started_at: Mapped[datetime]
    heartbeat_at: Mapped[datetime]
    kind: Mapped[str | None] = mapped_column(String(16))
    render_id: Mapped[str | None] = mapped_column(String(32))
    segment_id: Mapped[str | None] = mapped_column(String(32))
    progress_at: Mapped[datetime | None]
    units_done: Mapped[int] = mapped_column(default=0)
    machine: Mapped[str | None] = mapped_column(String(255))
    done_at: Mapped[datetime | None]
    failures_in_a_row: Mapped[int] = mapped_column(default=0, server_default="0")
    first_failed_at: Mapped[datetime | None]
    drained_since: Mapped[datetime | None]
    quarantined_since: Mapped[datetime | None]
    quarantine_reason: Mapped[str | None] = mapped_column(Text)
    labels: Mapped[list[str] | None]
    software: Mapped[dict[str, Any] | None]
    lacked_codecs: Mapped[list[str] | None]
    measures_vmaf: Mapped[bool] = mapped_column(default=False, server_default=false())
    precisions: Mapped[list[str] | None]


class FailedAttempt(Table):
    """A failed attempt at a unit of work: where it failed, and whether the error said that no further attempt
    can succeed. `unit_id` is the segment's for `upscale`, otherwise the render's.
    """

    __tablename__ = "failed_attempts"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    unit_id: Mapped[str] = mapped_column(String(32), index=True)
    kind: Mapped[str] = mapped_column(String(16))
    render_id: Mapped[str] = mapped_column(ForeignKey(Render.id, ondelete="CASCADE"), index=True)
    worker: Mapped[str] = mapped_column(String(100))
    machine: Mapped[str] = mapped_column(String(255))
    is_permanent: Mapped[bool]
    failed_at: Mapped[datetime]


class PeriodicTask(Table):
    """A task that one of all workers runs at intervals. The worker that claims a run advances `due_at`."""

    __tablename__ = "chores"

    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    due_at: Mapped[datetime]
    worker: Mapped[str | None] = mapped_column(String(100))


class MeasuredSpeed(Table):
    """How many input pixels a second one worker with such a device upscales with an engine.

    `pixels_per_second` is the mean over the last `seconds` of its work. `worker_device` is a `device_name` of workers.
    """

    __tablename__ = "measured_speeds"

    worker_device: Mapped[str] = mapped_column(String(100), primary_key=True)
    engine: Mapped[str] = mapped_column(String(40), primary_key=True)
    pixels_per_second: Mapped[float]
    seconds: Mapped[float]
    measured_at: Mapped[datetime]


class MeasuredOptionSpeed(Table):
    """How fast one worker with such a device is with an option that takes time of its own, as MeasuredSpeed.

    `option`: `stabilise ENGINE`, whose pixels are those of the input; `vmaf CODEC`, the search for a target and the
    encoding after it, whose pixels are those of the output.
    """

    __tablename__ = "measured_option_speeds"

    worker_device: Mapped[str] = mapped_column(String(100), primary_key=True)
    option: Mapped[str] = mapped_column(String(60), primary_key=True)
    pixels_per_second: Mapped[float]
    seconds: Mapped[float]
    measured_at: Mapped[datetime]
