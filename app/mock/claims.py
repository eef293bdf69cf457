"""Claims of the mock: the next unit of one given render, whatever the order of users and the leases of the rows."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, Update, select
from sqlalchemy.orm import Session, joinedload

from app.platform.lease import Leased, claim_first
from app.platform.work_kinds import WorkKind
from app.renders.statuses import UNFINISHED, RenderStatus, SegmentStatus
from app.renders.tables import Render, Segment
from app.renders.transitions import taken_from_queue
from app.renders.workload import OPEN_SEGMENT
from app.work.queries import Job

WORKER_NAME = "mock"
# No lease of the mock expires: no other worker could take the work over.
LEASE_SECONDS = 365 * 24 * 3600.0


def open_renders(session: Session) -> Sequence[Render]:
    """Every render that has not ended, with its file, the oldest first."""
    query = (
        select(Render)
        .options(joinedload(Render.file))
        .where(Render.status.in_(UNFINISHED))
        .order_by(Render.created_at, Render.id)
    )
    return session.scalars(query).all()


def claim_next_unit(session: Session, render: Render) -> Job | None:
    """The unit that leads to the render's next status; a queued render becomes `pending`.

    None when the render has moved on since it was read.
    """
    if render.status is not RenderStatus.PROCESSING:
        return _claim_render(session, render, WorkKind.PREPARE)
    return _claim_segment(session, render) or _claim_render(session, render, WorkKind.FINISH)


def _claim_render(session: Session, render: Render, kind: WorkKind) -> Job | None:
    own = select(Render.id).where(Render.id == render.id, Render.status == render.status)
    statement = _claim(Render, own, **taken_from_queue()).returning(Render.attempt)
    attempt = session.scalar(statement)
    return None if attempt is None else _job(render, kind=kind, segment_id=None, attempt=attempt)


def _claim_segment(session: Session, render: Render) -> Job | None:
    own = select(Segment.id).where(Segment.render_id == render.id, Segment.status.in_(OPEN_SEGMENT))
    statement = _claim(Segment, own, status=SegmentStatus.RUNNING).returning(Segment.id, Segment.attempt)
    row = session.execute(statement).one_or_none()
    return None if row is None else _job(render, kind=WorkKind.UPSCALE, segment_id=row[0], attempt=row[1])


def _claim(table: type[Leased], own: Select[str], **values: Any) -> Update:
    # The lease that it replaces is the mock's own, and no failure.
    return claim_first(
        table, own, seconds=LEASE_SECONDS, worker=WORKER_NAME, failures=table.failures, **values
    )


def _job(render: Render, **claimed: Any) -> Job:
    return Job.of(render, render_id=render.id, input_key=render.file.storage_key, **claimed)
