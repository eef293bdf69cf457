"""Queue metrics: how many renders there are by status, and how much work waits and runs in each queue."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlalchemy import and_, exists, func, or_, select
from sqlalchemy.orm import Session

from app.platform.work_kinds import WorkQueue
from app.renders.statuses import ENDED, UNFINISHED, RenderStatus, SegmentStatus
from app.renders.tables import Render, Segment
from app.work.queries import UNFINISHED_SEGMENT


@dataclass(frozen=True, kw_only=True)
class QueueMetrics:
    """One queue's units of work.

    `waiting` counts those that no worker holds, including those that pause before a retry. `oldest_seconds`
    is the age of the oldest waiting segment, or of the oldest render waiting to be prepared; 0 if none waits.
    A render that waits only for its finish counts without an age: no column says since when it waits.
    """

    waiting: int
    running: int
    oldest_seconds: float


@dataclass(frozen=True, kw_only=True)
class WorkMetrics:
    """Contains every status and every queue, including those with zeros."""

    renders: Mapping[RenderStatus, int]
    queues: Mapping[WorkQueue, QueueMetrics]


@dataclass(kw_only=True)
class _Tally:
    waiting: int = 0
    running: int = 0
    first: list[datetime] = field(default_factory=list)

    def metrics(self, now: datetime) -> QueueMetrics:
        ages = [(now - created_at).total_seconds() for created_at in self.first]
        return QueueMetrics(waiting=self.waiting, running=self.running, oldest_seconds=max([0.0, *ages]))


def work_metrics(session: Session) -> WorkMetrics:
    """Four counts, each by an index on the status."""
    renders = dict.fromkeys(RenderStatus, 0)
    ended = select(Render.status, func.count()).where(Render.status.in_(ENDED)).group_by(Render.status)
    for status, count in session.execute(ended):
        renders[status] = count
    now = datetime.now(UTC)
    cpu = _count_renders(session, renders)
    return WorkMetrics(
        renders=renders,
        queues={
            WorkQueue.CPU: cpu.metrics(now),
            WorkQueue.GPU: _count_segments(session).metrics(now),
        },
    )


def _count_renders(session: Session, renders: dict[RenderStatus, int]) -> _Tally:
    """Renders to prepare and to finish; every unfinished one is added to `renders`."""
    tally = _Tally()
    is_free = Render.lease_expires_at.is_(None)
    unfinished = (
        select(Render.status, is_free, func.count(), func.min(Render.created_at))
        .where(Render.status.in_(UNFINISHED))
        .group_by(Render.status, is_free)
    )
    for status, free, count, first in session.execute(unfinished):
        renders[status] += count
        if not free:
            tally.running += count
        elif status is not RenderStatus.PROCESSING:
            tally.waiting += count
            tally.first.append(first)
    unfinished_segment = exists().where(
        Segment.render_id == Render.id, Segment.status.in_(UNFINISHED_SEGMENT)
    )
    to_go_on = select(func.count()).where(
        and_(
            Render.status == RenderStatus.PROCESSING,
            is_free,
            or_(Render.unplanned_frames.is_not(None), ~unfinished_segment),
        )
    )
    tally.waiting += session.scalar(to_go_on) or 0
    return tally


def _count_segments(session: Session) -> _Tally:
    tally = _Tally()
    open_segments = (
        select(Segment.status, func.count(), func.min(Segment.created_at))
        .where(Segment.status.in_((SegmentStatus.WAITING, SegmentStatus.RUNNING)))
        .group_by(Segment.status)
    )
    for status, count, first in session.execute(open_segments):
        if status is SegmentStatus.RUNNING:
            tally.running = count
        else:
            tally.waiting = count
            tally.first.append(first)
    return tally
