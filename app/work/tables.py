"""Worker processes, the tasks that one of them runs at a time, and the speeds measured on them."""

from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from app.platform.tables import Table


class WorkerProcess(Table):
    """A worker process that runs, or ran until lately. `kind`, `render_id` and `segment_id` are the unit it works on.

    `progress_at` is when that unit last made progress, as the worker itself sees it.

    `device_name` is the model of its device, by which its speed is kept (`MeasuredSpeed`).
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


class PeriodicTask(Table):
    """A task that one of all workers runs at intervals. The worker that claims a run moves `due_at` on."""

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
