"""Measured speeds of workers, from which render times are estimated."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog
from sqlalchemy import ColumnElement, Select, and_, case, func, select
from sqlalchemy.orm import Session

from app.platform.database import Database, commits_lazily, database_now, insert_into
from app.platform.errors import RegenError
from app.platform.work_kinds import WorkQueue
from app.work.tables import MeasuredOptionSpeed, MeasuredSpeed, WorkerProcess

# Long enough that one unusual segment counts little, and short enough that a new driver or setting soon shows.
MEMORY_SECONDS = 600.0
LEAST_SECONDS = 0.001
# Options of MeasuredOptionSpeed begin so.
STABILISED, SEARCHED = "stabilise ", "vmaf "

log = structlog.get_logger(__name__)


def note_segment(
    database: Database, *, device: str, engine: str, pixels: int, seconds: float, is_stabilised: bool = False
) -> None:
    """Note that a segment of `pixels` input pixels took `seconds`, transfers included.

    One `is_stabilised` counts as the engine's speed as well until the first other one. Each of these functions uses its
    own transaction, and never raises: nothing depends on it, and no segment is repeated for it.
    """
    measured = _Measured(float(pixels), seconds)
    speed = {"worker_device": device, "engine": engine}
    if is_stabilised:
        option = {"worker_device": device, "option": f"{STABILISED}{engine}"}
        _try_to_note(
            database,
            (MeasuredOptionSpeed, option, measured),
            (MeasuredSpeed, speed, replace(measured, weight=0)),
        )
    else:
        _try_to_note(database, (MeasuredSpeed, speed, measured))


def note_search(database: Database, *, device: str, codec: str, pixels: int, seconds: float) -> None:
    """Note that a search for a segment's quality, and its encoding, took `seconds` for `pixels` of the output."""
    option = {"worker_device": device, "option": f"{SEARCHED}{codec}"}
    _try_to_note(database, (MeasuredOptionSpeed, option, _Measured(float(pixels), seconds)))


@dataclass(frozen=True)
class _Measured:
    """Work that took so many seconds. `weight`: of them in the mean; with 0 it counts only while nothing else does."""

    pixels: float
    seconds: float
    weight: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "seconds", max(self.seconds, LEAST_SECONDS))


def _try_to_note(
    database: Database, *rows: tuple[type[MeasuredSpeed | MeasuredOptionSpeed], Mapping[str, str], _Measured]
) -> None:
    try:
        with database.write() as session:
            for table, key, measured in rows:
                _note(session, table, key, measured, longest_memory=MEMORY_SECONDS)
    except RegenError as error:
        log.warning("speed_not_noted", error=error.message, detail=error.detail)
    except Exception:
        log.exception("speed_not_noted")


@dataclass(frozen=True, kw_only=True)
class DeviceSpeed:
    """How many input pixels a second a worker with such a device upscales; so many such `workers` run.

    `stabilised_pixels_per_second`: with `stabilise`; None while that was not measured.
    """

    device: str
    engine: str
    pixels_per_second: float
    stabilised_pixels_per_second: float | None = None
    workers: int = 0

    def pace(self, *, is_stabilised: bool) -> float:
        """Input pixels per second; with `stabilise` as without it while that was not measured."""
        return (self.stabilised_pixels_per_second if is_stabilised else None) or self.pixels_per_second


@dataclass(frozen=True, kw_only=True)
class SearchSpeed:
    """`workers` running workers have such a device; each searches for so many output pixels a second with a codec."""

    codec: str
    pixels_per_second: float
    workers: int


def _note(
    session: Session,
    table: type[MeasuredSpeed | MeasuredOptionSpeed],
    key: Mapping[str, str],
    measured: _Measured,
    *,
    longest_memory: float,
) -> None:
    """Add work to the mean, which covers about the last `longest_memory` seconds of work.

    All workers with such a device write this row: it is locked no longer than the statement takes.
    """
    pace = measured.pixels / measured.seconds
    seconds = measured.seconds * measured.weight
    new = insert_into(session, table).values(
        **key, pixels_per_second=pace, seconds=seconds, measured_at=database_now()
    )
    known = case((table.seconds < longest_memory, table.seconds), else_=longest_memory)
    mean = (table.pixels_per_second * known + pace * seconds) / func.nullif(known + seconds, 0)
    session.execute(
        new.on_conflict_do_update(
            index_elements=[*key],
            set_={
                "pixels_per_second": func.coalesce(mean, pace),
                "seconds": known + seconds,
                "measured_at": new.excluded.measured_at,
            },
        ).returning(commits_lazily())
    )


def speeds_at_work(session: Session, *, silent_for: float) -> Sequence[DeviceSpeed]:
    """Measured speeds of the upscaling workers with a heartbeat within `silent_for` seconds."""
    count = func.count(WorkerProcess.name).label("workers")
    query = (
        _device_speeds(count)
        .join(WorkerProcess, WorkerProcess.device_name == MeasuredSpeed.worker_device)
        .where(*_upscales(silent_for))
        .group_by(*_FIGURES)
    )
    return [DeviceSpeed(**row._mapping) for row in session.execute(query)]


def measured_speeds(session: Session, *, within_seconds: float) -> Sequence[DeviceSpeed]:
    """Every recent measurement, whether such workers run or not; these are not counted."""
    query = _device_speeds().where(MeasuredSpeed.measured_at > database_now(plus_seconds=-within_seconds))
    return [DeviceSpeed(**row._mapping) for row in session.execute(query)]


_FIGURES = (
    MeasuredSpeed.worker_device.label("device"),
    MeasuredSpeed.engine,
    MeasuredSpeed.pixels_per_second,
    MeasuredOptionSpeed.pixels_per_second.label("stabilised_pixels_per_second"),
)


def _device_speeds(*more: ColumnElement[Any]) -> Select[Any]:
    stabilised = and_(
        MeasuredOptionSpeed.worker_device == MeasuredSpeed.worker_device,
        MeasuredOptionSpeed.option == STABILISED + MeasuredSpeed.engine,
    )
    query = select(*_FIGURES, *more).outerjoin(MeasuredOptionSpeed, stabilised)
    return query.order_by(MeasuredSpeed.worker_device, MeasuredSpeed.engine)


def searches_at_work(session: Session, *, silent_for: float) -> Sequence[SearchSpeed]:
    """The same of the search for a target of VMAF."""
    figures = (
        MeasuredOptionSpeed.worker_device,
        MeasuredOptionSpeed.option,
        MeasuredOptionSpeed.pixels_per_second,
    )
    query = (
        select(*figures, func.count(WorkerProcess.name))
        .join(WorkerProcess, WorkerProcess.device_name == MeasuredOptionSpeed.worker_device)
        .where(*_upscales(silent_for), MeasuredOptionSpeed.option.startswith(SEARCHED))
        .group_by(*figures)
    )
    return [
        SearchSpeed(codec=option.removeprefix(SEARCHED), pixels_per_second=speed, workers=count)
        for _, option, speed, count in session.execute(query)
    ]


def _upscales(silent_for: float) -> tuple[ColumnElement[bool], ...]:
    return (
        WorkerProcess.heartbeat_at >= database_now(plus_seconds=-silent_for),
        WorkerProcess.queues.contains(WorkQueue.GPU.value),
    )
