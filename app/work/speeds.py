"""Measured speeds of workers, from which render times are estimated."""

from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from app.platform.database import Database, commits_lazily, database_now, insert_into
from app.platform.errors import RegenError
from app.platform.work_kinds import WorkQueue
from app.work.tables import MeasuredSpeed, WorkerProcess

# Long enough that one unusual segment counts little, and short enough that a new driver or setting soon shows.
MEMORY_SECONDS = 600.0
LEAST_SECONDS = 0.001

log = structlog.get_logger(__name__)


def note_segment(database: Database, *, device: str, engine: str, pixels: int, seconds: float) -> None:
    """Note that a segment of `pixels` input pixels took `seconds`, transfers included.

    Uses its own transaction, and never raises: nothing depends on it, and no segment is repeated for it.
    """
    try:
        with database.write() as session:
            _note(
                session,
                device=device,
                engine=engine,
                pixels=float(pixels),
                seconds=max(seconds, LEAST_SECONDS),
                longest_memory=MEMORY_SECONDS,
            )
    except RegenError as error:
        log.warning("speed_not_noted", error=error.message, detail=error.detail)
    except Exception:
        log.exception("speed_not_noted")


@dataclass(frozen=True, kw_only=True)
class DeviceSpeed:
    """`workers` running workers have such a device; each upscales so many input pixels a second."""

    device: str
    engine: str
    pixels_per_second: float
    workers: int


def _note(
    session: Session, *, device: str, engine: str, pixels: float, seconds: float, longest_memory: float
) -> None:
    """Add work to the mean, which covers about the last `longest_memory` seconds of work.

    All workers with such a device write this row: it is locked no longer than the statement takes.
    """
    new = insert_into(session, MeasuredSpeed).values(
        worker_device=device,
        engine=engine,
        pixels_per_second=pixels / seconds,
        seconds=seconds,
        measured_at=database_now(),
    )
    known = case((MeasuredSpeed.seconds < longest_memory, MeasuredSpeed.seconds), else_=longest_memory)
    mean = (MeasuredSpeed.pixels_per_second * known + pixels) / (known + seconds)
    session.execute(
        new.on_conflict_do_update(
            index_elements=["worker_device", "engine"],
            set_={
                "pixels_per_second": mean,
                "seconds": known + seconds,
                "measured_at": new.excluded.measured_at,
            },
        ).returning(commits_lazily())
    )


def speeds_at_work(session: Session, *, silent_for: float) -> Sequence[DeviceSpeed]:
    """Measured speeds of the upscaling workers with a heartbeat within `silent_for` seconds."""
    query = (
        select(
            MeasuredSpeed.worker_device,
            MeasuredSpeed.engine,
            MeasuredSpeed.pixels_per_second,
            func.count(WorkerProcess.name),
        )
        .join(WorkerProcess, WorkerProcess.device_name == MeasuredSpeed.worker_device)
        .where(
            WorkerProcess.heartbeat_at >= database_now(plus_seconds=-silent_for),
            WorkerProcess.queues.contains(WorkQueue.GPU.value),
        )
        .group_by(MeasuredSpeed.worker_device, MeasuredSpeed.engine, MeasuredSpeed.pixels_per_second)
        .order_by(MeasuredSpeed.worker_device, MeasuredSpeed.engine)
    )
    return [
        DeviceSpeed(device=device, engine=engine, pixels_per_second=speed, workers=count)
        for device, engine, speed, count in session.execute(query)
    ]


def measured_speeds(session: Session, *, within_seconds: float) -> Sequence[tuple[str, str, float]]:
    """Engine, device and input pixels per second of every recent measurement, whether such workers run or not."""
    query = (
        select(MeasuredSpeed.engine, MeasuredSpeed.worker_device, MeasuredSpeed.pixels_per_second)
        .where(MeasuredSpeed.measured_at > database_now(plus_seconds=-within_seconds))
        .order_by(MeasuredSpeed.engine, MeasuredSpeed.worker_device)
    )
    return [(engine, device, speed) for engine, device, speed in session.execute(query)]
