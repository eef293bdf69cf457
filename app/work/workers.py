"""Workers as administrators see them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from app.platform.work_kinds import WorkKind, WorkQueue
from app.work import worker_queries

# After so many leases without a heartbeat a worker is silent: its work was given to others long ago.
SILENT_LEASES = 3
FORGOTTEN_AFTER_SECONDS = 24 * 3600.0


@dataclass(frozen=True, kw_only=True)
class WorkerView:
    """One worker process. `kind`, `render_id` and `segment_id` are the unit of work that it holds, if any.

    `unheard_seconds`: since when it was not heard of, on the database's clock.
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
    units_done: int

    def is_alive(self, *, lease_seconds: float) -> bool:
        """Heard of within three leases."""
        return self.unheard_seconds < SILENT_LEASES * lease_seconds


def list_workers(session: Session) -> Sequence[WorkerView]:
    """Every worker that was heard of within a day and did not end in good order, the oldest first."""
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
            units_done=row.units_done,
        )
        for row, now in worker_queries.list_workers(session)
    ]
