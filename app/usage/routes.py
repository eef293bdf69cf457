"""GET /v1/usage: usage and limits."""

from app.accounts.service import get_user
from app.http.dependencies import ResourcesDependency, UserDependency
from app.http.router import BodyRouter
from app.usage.schemas import PeriodDependency, UsageBody
from app.usage.service import usage_of

router = BodyRouter(tags=["usage"])


@router.get("/v1/usage")
def get_usage(user: UserDependency, resources: ResourcesDependency, period: PeriodDependency) -> UsageBody:
    """Completed renders by day and engine, stored bytes and unfinished renders, and your limits.

    Days without a completed render are left out; deleted renders still count.
    """
    with resources.database.read() as session:
        return UsageBody.of(
            usage_of(session, user_id=user.id, period=period),
            user=get_user(session, user_id=user.id),
            allowance=user.allowance,
            settings=resources.settings,
        )
