"""Usage in a period, and the limits."""

from datetime import date
from decimal import Decimal
from typing import Annotated, Self, TypeVar

from fastapi import Depends, Query
from pydantic import Field

from app.accounts.schemas import ShownLimits
from app.accounts.tables import User
from app.http.body import Body, Number, with_example
from app.platform.settings import Settings
from app.usage.allowances import Allowance
from app.usage.service import Period, UsageReport, period_of


class EffectiveLimits(ShownLimits):
    """The tightest of the server's, the user's and the key's."""

    max_running_segments: int | None = None
    max_running_renders: int | None = None

    @classmethod
    def of(cls, user: User, allowance: Allowance, settings: Settings) -> Self:
        media, quota, key_quota = allowance.media, allowance.quota, allowance.key_quota
        rules = [rule for rule in (allowance.requests, allowance.key_requests) if rule is not None]
        return cls(
            requests=";".join(rules) or None,
            max_upload_bytes=allowance.max_upload_bytes,
            max_input_pixels=media.max_input_pixels,
            max_duration_seconds=media.max_duration_seconds,
            max_output_pixels=media.max_output_pixels,
            max_output_frames=media.max_output_frames,
            max_queued_renders=_least(quota.max_queued_renders, key_quota.max_queued_renders),
            max_storage_bytes=_least(quota.max_storage_bytes, key_quota.max_storage_bytes),
            max_cost_per_month=_least(quota.max_cost_per_month, key_quota.max_cost_per_month),
            max_running_segments=user.max_running_segments or settings.max_running_segments_per_user,
            max_running_renders=user.max_running_renders or settings.max_running_renders_per_user,
        )


class UsedOnDay(Body):
    day: date = Field(description="In UTC: when the renders were completed.")
    engine: str
    renders: int
    gigapixels: Number = Field(description="Of the outputs.")
    cost: Number = Field(description="Gigapixels times the engine's multiplier.")


class UsageTotals(Body):
    renders: int = Field(description="Completed in the period.")
    gigapixels: Number
    cost: Number
    month_cost: Number = Field(
        description="Of the present month, including renders that have not ended: `maxCostPerMonth` limits it."
    )
    storage_bytes: int = Field(description="Of uploads and results, now.")
    queued_renders: int
    running_renders: int


class Usage(Body):
    from_: date = Field(alias="from")
    to: date
    days: list[UsedOnDay] = Field(description="Days with completed renders, by engine.")
    totals: UsageTotals
    limits: EffectiveLimits


class UsageBody(Body):
    model_config = with_example(
        {
            "usage": {
                "from": "2026-11-01",
                "to": "2026-11-30",
                "days": [
                    {
                        "day": "2026-11-22",
                        "engine": "regen-4x-lite",
                        "renders": 3,
                        "gigapixels": 1.25,
                        "cost": 1.25,
                    }
                ],
                "totals": {
                    "renders": 3,
                    "gigapixels": 1.25,
                    "cost": 1.25,
                    "monthCost": 1.5,
                    "storageBytes": 157286400,
                    "queuedRenders": 1,
                    "runningRenders": 0,
                },
                "limits": {"requests": "100/minute", "maxUploadBytes": 2147483648},
            }
        }
    )

    usage: Usage

    @classmethod
    def of(cls, usage: UsageReport, *, user: User, allowance: Allowance, settings: Settings) -> Self:
        totals = UsageTotals(
            renders=sum(used.renders for used in usage.days),
            gigapixels=sum((used.gigapixels for used in usage.days), Decimal()),
            cost=sum((used.cost for used in usage.days), Decimal()),
            month_cost=usage.month_cost,
            storage_bytes=usage.stored_bytes,
            queued_renders=usage.queued,
            running_renders=usage.running,
        )
        return cls(
            usage=Usage(
                from_=usage.period.first,
                to=usage.period.last,
                days=[UsedOnDay.model_validate(used) for used in usage.days],
                totals=totals,
                limits=EffectiveLimits.of(user, allowance, settings),
            )
        )


async def asked_period(
    first: Annotated[
        date | None,
        Query(
            alias="from",
            description="The first day (UTC); default: the month's first.",
            examples=["2026-11-01"],
        ),
    ] = None,
    last: Annotated[
        date | None,
        Query(
            alias="to",
            description="The last day, included; default: the month's last.",
            examples=["2026-11-30"],
        ),
    ] = None,
) -> Period:
    """Raises InvalidRequest for days in the wrong order, or too far apart."""
    return period_of(first, last)


PeriodDependency = Annotated[Period, Depends(asked_period)]


T = TypeVar("T", int, float)


def _least(one: T | None, other: T | None) -> T | None:
    given = [limit for limit in (one, other) if limit is not None]
    return min(given, default=None)
