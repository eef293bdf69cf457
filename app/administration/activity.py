"""How the queue and the throughput of all renders went over the last hours, from the renders that still exist."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, cast, extract, func, literal_column, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.platform.database import read_clock
from app.renders.statuses import RenderStatus
from app.renders.tables import Render

MOST_INTERVALS = 96
LEAST_INTERVAL_SECONDS = 60
OUTPUT_FRAMES = Render.__table__.c.output_frames


@dataclass(frozen=True, kw_only=True)
class Interval:
    """`unfinished` renders, and how long ago the oldest of them was made (0 without any), are those at the moment
    `ends_at`; the others are counts since the interval before. `frames` are those of the completed renders' output."""

    ends_at: datetime
    unfinished: int
    oldest_seconds: float
    made: int
    completed: int
    failed: int
    frames: int


@dataclass(frozen=True, kw_only=True)
class Activity:
    interval_seconds: int
    intervals: Sequence[Interval]


def activity(session: Session, *, hours: int) -> Activity:
    """Intervals of equal length, aligned to it, the last one so far. Costs three range scans of one index: of renders
    that have not ended, or ended within the `hours`."""
    now = read_clock(session)
    width = max(LEAST_INTERVAL_SECONDS, -(-hours * 3600 // MOST_INTERVALS))
    last = int(now.timestamp()) // width
    first = last + 1 - -(-hours * 3600 // width)
    start = datetime.fromtimestamp(first * width, UTC)

    # The width is no parameter: PostgreSQL would not see that what is grouped by is what is selected.
    length = literal_column(str(width), BigInteger)
    is_sqlite = session.get_bind().dialect.name == "sqlite"

    def number(moment: InstrumentedAttribute[Any]) -> ColumnElement[int]:
        seconds = extract("epoch", moment)
        # A cast rounds; SQLite's seconds are whole, and not every SQLite has `floor`.
        return cast(seconds if is_sqlite else func.floor(seconds), BigInteger) // length

    made: Counter[int] = Counter()
    ended: dict[RenderStatus, Counter[int]] = defaultdict(Counter)
    frames: Counter[int] = Counter()
    # The creation of the oldest render among those that ended in each interval, or have not ended (after the last).
    oldest: dict[int, datetime] = {}
    unfinished = 0

    waiting = (
        select(number(Render.created_at), func.count(), func.min(Render.created_at))
        .where(Render.ended_at.is_(None))
        .group_by(number(Render.created_at))
    )
    for made_in, count, created_at in session.execute(waiting):
        made[min(made_in, last)] += count
        unfinished += count
        oldest[last + 1] = min(created_at, oldest.get(last + 1, created_at))
    done = (
        select(
            number(Render.ended_at),
            Render.status,
            func.count(),
            func.sum(OUTPUT_FRAMES),
            func.min(Render.created_at),
        )
        .where(Render.ended_at >= start)
        .group_by(number(Render.ended_at), Render.status)
    )
    for ended_in, status, count, shown, created_at in session.execute(done):
        at = min(ended_in, last)
        ended[status][at] += count
        oldest[at] = min(created_at, oldest.get(at, created_at))
        if status is RenderStatus.COMPLETED:
            frames[at] += int(shown)
    done_since = (
        select(number(Render.created_at), func.count())
        .where(Render.ended_at >= start, Render.created_at >= start)
        .group_by(number(Render.created_at))
    )
    for made_in, count in session.execute(done_since):
        made[min(made_in, last)] += count

    intervals = []
    first_made = oldest.get(last + 1)
    # From the present back.
    for at in range(last, first - 1, -1):
        ends_at = min(now, datetime.fromtimestamp((at + 1) * width, UTC))
        age = 0.0 if first_made is None else (ends_at - first_made).total_seconds()
        completed, failed = (ended[status][at] for status in (RenderStatus.COMPLETED, RenderStatus.FAILED))
        intervals.append(
            Interval(
                ends_at=ends_at,
                unfinished=unfinished,
                oldest_seconds=max(0.0, age),
                made=made[at],
                completed=completed,
                failed=failed,
                frames=frames[at],
            )
        )
        unfinished += completed + failed - made[at]
        first_made = min((moment for moment in (first_made, oldest.get(at)) if moment), default=None)
    return Activity(interval_seconds=width, intervals=intervals[::-1])
