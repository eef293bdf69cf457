"""Administrators' view of workers."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy.orm import Session

from app.platform.work_kinds import WorkKind, WorkQueue
from app.work import worker_queries
from app.work.worker_queries import SILENT_LEASES

FORGOTTEN_AFTER_SECONDS = 24 * 3600.0


class WorkerStatus(StrEnum):
    ACTIVE = "active"
    DRAINING = "draining"
    """Claims nothing more, and has a unit of work in hand."""
    DRAINED = "drained"
    QUARANTINED = "quarantined"
    """Claims nothing until it has tested itself."""


@dataclass(frozen=True, kw_only=True)
class WorkerView:
    """One worker process. `kind`, `render_id` and `segment_id` are the unit of work that it holds, if any.

    `unheard_seconds`: the time since its last report, on the database's clock. `progress_at`: when that unit
    last made progress, as far as the worker reports; `still_seconds`: how long ago that was. `frames_per_second`: of
    the render that it upscales, at the measured speed of such devices; `precision`: that render's, once it is begun.
    `precisions`: those in which it upscales; none for a worker of an older version. `measures_vmaf`: whether its ffmpeg
    does, as a search for a quality needs.
    """

    name: str
    host: str
    pid: int
    device: str
    queues: tuple[WorkQueue, ...]
    engines: tuple[str, ...]
    version: str
    started_at: datetime
    heartbeat_at: datetime
    unheard_seconds: float
    kind: WorkKind | None
    render_id: str | None
    segment_id: str | None
    progress_at: datetime | None
    still_seconds: float
    units_done: int
    machine: str
    drained_since: datetime | None
    quarantined_since: datetime | None
    quarantine_reason: str | None
    software: Mapping[str, str]
    labels: tuple[str, ...]
    lacked_codecs: frozenset[str] = frozenset()
    measures_vmaf: bool = False
    precisions: tuple[str, ...] = ()
    frames_per_second: float | None = None
    precision: str | None = None

    @property
    def status(self) -> WorkerStatus:
        if self.quarantined_since is not None:
            return WorkerStatus.QUARANTINED
        if self.drained_since is None:
            return WorkerStatus.ACTIVE
        return WorkerStatus.DRAINED if self.kind is None else WorkerStatus.DRAINING

    @property
    def status_since(self) -> datetime:
        return self.quarantined_since or self.drained_since or self.started_at

    def is_alive(self, *, lease_seconds: float) -> bool:
        """It reported within three leases."""
        return self.unheard_seconds < SILENT_LEASES * lease_seconds

    def is_stalled(self, *, lease_seconds: float) -> bool:
        """It is alive, and holds a unit of work that has made no progress for three leases."""
        return (
            self.kind is not None
            and self.still_seconds >= SILENT_LEASES * lease_seconds
            and self.is_alive(lease_seconds=lease_seconds)
        )


@dataclass(frozen=True, kw_only=True)
class Workforce:
    """The workers at one moment: how many are alive, how many of these are stalled and in quarantine, and the
    queues that no claiming worker serves. `by_status` counts live workers. `lacked_codecs` are those that none of
    them encodes that upscale, `lacks_vmaf` is whether none of them measures VMAF; without such workers nothing
    is said to be lacking."""

    alive: int
    stalled: int
    by_status: Mapping[WorkerStatus, int]
    unserved: tuple[WorkQueue, ...]
    lacked_codecs: frozenset[str] = frozenset()
    lacks_vmaf: bool = False

    @property
    def missing(self) -> str | None:
        """A sentence for users when no render can be completed now."""
        if not self.alive:
            return "No worker is running, so renders wait until one is started."
        if self.unserved:
            queues = " and ".join(f"`{queue}`" for queue in self.unserved)
            return f"No worker of the queue {queues} is running, so renders wait until one is started."
        return None

    @property
    def warnings(self) -> list[str]:
        """Sentences for operators."""
        stalled = (
            f"Workers that hold stalled work: {self.stalled}. `regen workers` names them."
            if self.stalled
            else None
        )
        quarantined = self.by_status[WorkerStatus.QUARANTINED]
        in_quarantine = (
            f"Workers in quarantine, because their work failed: {quarantined}. `regen workers` names them."
            if quarantined
            else None
        )
        return [sentence for sentence in (self.missing, stalled, in_quarantine) if sentence]


def count_workers(session: Session, *, lease_seconds: float) -> Workforce:
    views = list_workers(session)
    alive = [view for view in views if view.is_alive(lease_seconds=lease_seconds)]
    upscaling = [view for view in alive if WorkQueue.GPU in view.queues]
    lacked = [view.lacked_codecs for view in upscaling]
    served = {queue for view in alive if view.status is WorkerStatus.ACTIVE for queue in view.queues}
    return Workforce(
        alive=len(alive),
        by_status=Counter(view.status for view in alive),
        stalled=sum(view.is_stalled(lease_seconds=lease_seconds) for view in views),
        unserved=tuple(queue for queue in WorkQueue if queue not in served),
        lacked_codecs=frozenset.intersection(*lacked) if lacked else frozenset(),
        lacks_vmaf=bool(upscaling) and not any(view.measures_vmaf for view in upscaling),
    )


def list_workers(session: Session) -> Sequence[WorkerView]:
    """Every worker that reported within a day and has not ended normally, the oldest first."""
    return [
        WorkerView(
            name=row.name,
            host=row.host,
            pid=row.pid,
            device=row.device,
            queues=tuple(map(WorkQueue, row.queues.split(","))),
            engines=tuple(row.engines),
            version=row.version,
            started_at=row.started_at,
            heartbeat_at=row.heartbeat_at,
            unheard_seconds=max(0.0, (now - row.heartbeat_at).total_seconds()),
            kind=None if row.kind is None else WorkKind(row.kind),
            render_id=row.render_id,
            segment_id=row.segment_id,
            progress_at=row.progress_at,
            still_seconds=max(0.0, (now - (row.progress_at or now)).total_seconds()),
            units_done=row.units_done,
            machine=row.machine or row.host,
            drained_since=row.drained_since,
            quarantined_since=row.quarantined_since,
            quarantine_reason=row.quarantine_reason,
            software=row.software or {},
            labels=tuple(row.labels or ()),
            lacked_codecs=frozenset(row.lacked_codecs or ()),
            measures_vmaf=row.measures_vmaf,
            precisions=tuple(row.precisions or ()),
            frames_per_second=frames_per_second if row.kind == WorkKind.UPSCALE else None,
            precision=precision if row.kind == WorkKind.UPSCALE else None,
        )
        for row, now, frames_per_second, precision in worker_queries.list_workers(session)
    ]
