"""Usage: completed renders by day, and the current numbers of queued and running renders and stored bytes."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Select, cast, func, select
from sqlalchemy.orm import Session

from app.files.tables import File
from app.platform.database import insert_into
from app.renders.statuses import UNFINISHED, RenderStatus
from app.renders.tables import Render
from app.uploads.tables import Upload
from app.usage.tables import DailyUsage

PIXELS_PER_GIGAPIXEL = 10**9
RUNNING = (RenderStatus.PENDING, RenderStatus.PROCESSING)


@dataclass(frozen=True, kw_only=True)
class DayUsage:
    """The renders completed on a day (UTC) with one engine."""

    day: date
    engine: str
    renders: int
    gigapixels: Decimal
    cost: Decimal


def add_completed(session: Session, *, render_id: str) -> None:
    """Add a render that this transaction has completed; call it once per render."""
    render = session.execute(
        select(
            Render.user_id,
            Render.engine,
            Render.api_key_id,
            Render.completed_at,
            Render.cost,
            Render.output,
        ).where(Render.id == render_id)
    ).one()
    row = {
        "user_id": render.user_id,
        "day": render.completed_at.date(),
        "engine": render.engine,
        "api_key_id": render.api_key_id or "",
        "renders": 1,
        "gigapixels": render.output.total_pixels / PIXELS_PER_GIGAPIXEL,
        "cost": render.cost,
    }
    statement = insert_into(session, DailyUsage).values(row)
    session.execute(
        statement.on_conflict_do_update(
            index_elements=["user_id", "day", "engine", "api_key_id"],
            set_={
                "renders": DailyUsage.renders + statement.excluded.renders,
                **{
                    name: _pixels(getattr(DailyUsage, name) + statement.excluded[name])
                    / float(PIXELS_PER_GIGAPIXEL)
                    for name in ("gigapixels", "cost")
                },
            },
        )
    )


def list_days(session: Session, *, user_id: str, first: date, last: date) -> Sequence[DayUsage]:
    """Usage by day, the earliest first, and engine; both days are included."""
    query = (
        select(
            DailyUsage.day,
            DailyUsage.engine,
            func.sum(DailyUsage.renders),
            _total_pixels(DailyUsage.gigapixels),
            _total_pixels(DailyUsage.cost),
        )
        .where(DailyUsage.user_id == user_id, DailyUsage.day.between(first, last))
        .group_by(DailyUsage.day, DailyUsage.engine)
        .order_by(DailyUsage.day, DailyUsage.engine)
    )
    return [
        DayUsage(
            day=day,
            engine=engine,
            renders=int(renders),
            gigapixels=_gigapixels(pixels),
            cost=_gigapixels(cost_pixels),
        )
        for day, engine, renders, pixels, cost_pixels in session.execute(query)
    ]


def cost_of_month(session: Session, *, user_id: str, api_key_id: str | None, moment: datetime) -> Decimal:
    """The exact cost of renders completed in the month of `moment` (UTC) and of all unfinished ones; with a key, its
    own."""
    first = moment.astimezone(UTC).date().replace(day=1)
    completed = select(_total_pixels(DailyUsage.cost)).where(
        DailyUsage.user_id == user_id,
        DailyUsage.day >= first,
        DailyUsage.day < (first + timedelta(days=32)).replace(day=1),
    )
    unfinished = select(_total_pixels(Render.cost)).where(
        Render.user_id == user_id, Render.status.in_(UNFINISHED)
    )
    if api_key_id is not None:
        completed = completed.where(DailyUsage.api_key_id == api_key_id)
        unfinished = unfinished.where(Render.api_key_id == api_key_id)
    # One statement, because a render completed between two would be in neither.
    total = session.scalar(select(completed.scalar_subquery() + unfinished.scalar_subquery()))
    return _gigapixels(total or 0)


def count_queued(session: Session, *, user_id: str, api_key_id: str | None = None) -> int:
    """The number of the user's queued renders; with a key, of those made with it."""
    query = _count(user_id).where(Render.status == RenderStatus.QUEUED)
    if api_key_id is not None:
        query = query.where(Render.api_key_id == api_key_id)
    return session.scalar(query) or 0


def count_running(session: Session, *, user_id: str) -> int:
    """The number of the user's renders that have begun and not ended."""
    return session.scalar(_count(user_id).where(Render.status.in_(RUNNING))) or 0


def stored_bytes(session: Session, *, user_id: str, moment: datetime) -> int:
    """The bytes of the user's files, of open uploads in parts, and of results."""
    files = select(func.coalesce(func.sum(File.size_bytes), 0)).where(
        File.user_id == user_id, File.removed_at.is_(None)
    )
    uploads = select(func.coalesce(func.sum(Upload.size_bytes), 0)).where(
        Upload.user_id == user_id,
        Upload.completed_at.is_(None),
        Upload.aborted_at.is_(None),
        Upload.expires_at > moment,
    )
    results = select(func.coalesce(func.sum(Render.output_bytes), 0)).where(
        Render.user_id == user_id,
        Render.status == RenderStatus.COMPLETED,
        Render.output_key.is_not(None),
    )
    # One statement, because an upload completed between two would be in neither, or in both.
    parts = (files.scalar_subquery(), uploads.scalar_subquery(), results.scalar_subquery())
    return int(session.scalar(select(parts[0] + parts[1] + parts[2])) or 0)


def _count(user_id: str) -> Select[int]:
    return select(func.count()).select_from(Render).where(Render.user_id == user_id)


def _pixels(gigapixels: ColumnElement[float]) -> ColumnElement[float]:
    """Whole pixels, still a float. Multipliers are integers, so a fraction of a pixel is a rounding error."""
    return func.round(gigapixels * float(PIXELS_PER_GIGAPIXEL))


def _total_pixels(gigapixels: Any) -> ColumnElement[int]:
    """The sum of a column of gigapixels in whole pixels, which does not depend on the order of addition."""
    return func.coalesce(func.sum(cast(_pixels(gigapixels), BigInteger)), 0)


def _gigapixels(pixels: int | Decimal) -> Decimal:
    return Decimal(int(pixels)) / PIXELS_PER_GIGAPIXEL
