"""GET /v1/usage: what was rendered, and what is left."""

from datetime import date
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from app.accounts.schemas import UsageBody
from app.accounts.service import get_user
from app.accounts.views import usage_body
from app.http.dependencies import ResourcesDependency, UserDependency
from app.http.errors import documented
from app.usage.service import Period, period_of, usage_of

router = APIRouter()


async def asked_period(
    first: Annotated[
        date | None,
        Query(
            alias="from",
            description="The first day (UTC); left out for the month's.",
            examples=["2026-11-01"],
        ),
    ] = None,
    last: Annotated[
        date | None,
        Query(
            alias="to",
            description="The last day, included; left out for the month's.",
            examples=["2026-11-30"],
        ),
    ] = None,
) -> Period:
    """Raises InvalidRequest for days in the wrong order, or too far apart."""
    return period_of(first, last)


PeriodDependency = Annotated[Period, Depends(asked_period)]


@router.get("/v1/usage", response_model_exclude_none=True, responses=documented(400, 401, 429, 503))
def get_usage(user: UserDependency, resources: ResourcesDependency, period: PeriodDependency) -> UsageBody:
    """What was completed, by day and engine, what is stored and under way now, and your limits.

    Days without a completed render are left out; what is deleted later still counts.
    """
    with resources.database.read() as session:
        return usage_body(
            usage_of(session, user_id=user.id, period=period),
            user=get_user(session, user_id=user.id),
            allowance=user.allowance,
            settings=resources.settings,
        )
