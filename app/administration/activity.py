"""How the queue and the throughput of all renders went over the last hours, from the renders that still exist."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, case, cast, extract, func, literal_column, select
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
    `ends_at`; so are the `queued` ones, which no worker had taken up. The others are counts since the interval before.
    `frames` are those of the completed renders' output."""

    ends_at: datetime
    unfinished: int
    oldest_seconds: float
    queued: int
    oldest_queued_seconds: float
    made: int
    completed: int
    failed: int
    frames: int


@dataclass(frozen=True, kw_only=True)
class Activity:
    interval_seconds: int
    intervals: Sequence[Interval]


class _Present:
    """The renders in a state that begins when they are made: their number, and when the oldest was made, at the end of
    an interval. Goes back from now, interval by interval."""

    def __init__(self) -> None:
        self.count = 0
        self._first: datetime | None = None
        self._left: Counter[int] = Counter()
        self._first_of_left: dict[int, datetime] = {}

    def add(self, count: int, first: datetime, *, left_in: int | None) -> None:
        """`count` renders, the first made at `first`, that left the state in an interval, or have not."""
        if left_in is None:
            self.count += count
            self._first = min(first, self._first or first)
        else:
            self._left[left_in] += count
            self._first_of_left[left_in] = min(first, self._first_of_left.get(left_in, first))

    def age(self, moment: datetime) -> float:
        return 0.0 if self._first is None else max(0.0, (moment - self._first).total_seconds())

    def step_back(self, interval: int, *, made: int) -> None:
        """To the end of the interval before this one, in which `made` renders were made."""
        self.count += self._left[interval] - made
        first = self._first_of_left.get(interval)
        self._first = min((moment for moment in (self._first, first) if moment), default=None)


def activity(session: Session, *, hours: int) -> Activity:
    """Intervals of equal length, aligned to it, the last one so far. Costs two range scans of one index: of renders
    that have not ended, or ended within the `hours`."""
    now = read_clock(session)
    width = max(LEAST_INTERVAL_SECONDS, -(-hours * 3600 // MOST_INTERVALS))
    last = int(now.timestamp()) // width
    first = last + 1 - -(-hours * 3600 // width)
    start = datetime.fromtimestamp(first * width, UTC)

    # The width is no parameter: PostgreSQL would not see that what is grouped by is what is selected.
    length = literal_column(str(width), BigInteger)
    is_sqlite = session.get_bind().dialect.name == "sqlite"

    def number(moment: ColumnElement[Any] | InstrumentedAttribute[Any]) -> ColumnElement[int]:
        seconds = extract("epoch", moment)
        # A cast rounds; SQLite's seconds are whole, and not every SQLite has `floor`.
        return cast(seconds if is_sqlite else func.floor(seconds), BigInteger) // length

    keys = (number(Render.created_at), number(_left_queue_at()), number(Render.ended_at), Render.status)
    lives = select(*keys, func.count(), func.sum(OUTPUT_FRAMES), func.min(Render.created_at)).group_by(*keys)

    made: Counter[int] = Counter()
    ended: dict[RenderStatus, Counter[int]] = defaultdict(Counter)
    frames: Counter[int] = Counter()
    unfinished, queued = _Present(), _Present()
    for part in (Render.ended_at.is_(None), Render.ended_at >= start):
        for made_in, started_in, ended_in, status, count, shown, created_at in session.execute(
            lives.where(part)
        ):
            made[min(made_in, last)] += count
            queued.add(count, created_at, left_in=None if started_in is None else min(started_in, last))
            at = None if ended_in is None else min(ended_in, last)
            unfinished.add(count, created_at, left_in=at)
            if at is not None:
                ended[status][at] += count
                frames[at] += int(shown) if status is RenderStatus.COMPLETED else 0

    intervals = []
    # From the present back.
    for at in range(last, first - 1, -1):
        ends_at = min(now, datetime.fromtimestamp((at + 1) * width, UTC))
        intervals.append(
            Interval(
                ends_at=ends_at,
                unfinished=unfinished.count,
                oldest_seconds=unfinished.age(ends_at),
                queued=queued.count,
                oldest_queued_seconds=queued.age(ends_at),
                made=made[at],
                completed=ended[RenderStatus.COMPLETED][at],
                failed=ended[RenderStatus.FAILED][at],
                frames=frames[at],
            )
        )
        for state in (unfinished, queued):
            state.step_back(at, made=made[at])
    return Activity(interval_seconds=width, intervals=intervals[::-1])


def _left_queue_at() -> ColumnElement[Any]:
    """When a render was taken from the queue, or ended in it; None while it is there. One of an earlier version, of
    which this is not known, counts as taken at once."""
    return case(
        (Render.started_at.is_not(None), Render.started_at),
        (Render.status.in_((RenderStatus.QUEUED, RenderStatus.FAILED)), Render.ended_at),
        else_=Render.created_at,
    )
