"""What a user has used."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal

from sqlalchemy.orm import Session

from app.platform import clock
from app.platform.errors import InvalidRequest
from app.usage import queries as usage_queries
from app.usage.queries import DayUsage

LONGEST_PERIOD_DAYS = 366


@dataclass(frozen=True, kw_only=True)
class Period:
    """A range of days (UTC), both included."""

    first: date
    last: date


@dataclass(frozen=True, kw_only=True)
class UsageReport:
    """`days` has the renders completed in the period. All other values are current: `month_cost` is the cost that
    counts towards the monthly limit, of the current month with all unfinished renders."""

    period: Period
    days: Sequence[DayUsage]
    month_cost: Decimal
    stored_bytes: int
    queued: int
    running: int


def period_of(first: date | None, last: date | None) -> Period:
    """The given days; those of the current month where None. Raises InvalidRequest."""
    this_month = clock.now().date().replace(day=1)
    period = Period(
        first=first or this_month,
        last=last or (this_month + timedelta(days=32)).replace(day=1) - timedelta(days=1),
    )
    if period.first > period.last:
        raise InvalidRequest("`from` must not be later than `to`.")
    if (period.last - period.first).days >= LONGEST_PERIOD_DAYS:
        raise InvalidRequest(f"`from` and `to` may be at most {LONGEST_PERIOD_DAYS} days apart.")
    return period


def usage_of(session: Session, *, user_id: str, period: Period) -> UsageReport:
    now = clock.now()
    return UsageReport(
        period=period,
        days=usage_queries.list_days(session, user_id=user_id, first=period.first, last=period.last),
        month_cost=usage_queries.cost_of_month(session, user_id=user_id, api_key_id=None, moment=now),
        stored_bytes=usage_queries.stored_bytes(session, user_id=user_id, moment=now),
        queued=usage_queries.count_queued(session, user_id=user_id),
        running=usage_queries.count_running(session, user_id=user_id),
    )
