"""Sums of gigapixels and of costs: exact decimals, in whatever order they were added."""

import json
from collections.abc import Callable
from decimal import Decimal

import pytest
from sqlalchemy import update

from app.files.tables import File
from app.http.body import Body, Number
from app.platform import clock
from app.platform.database import Database
from app.platform.errors import TooManyRequests
from app.platform.media.limits import MediaLimits
from app.platform.settings import Settings
from app.renders.statuses import RenderStatus
from app.renders.tables import Render
from app.usage import queries as usage_queries
from app.usage.allowances import Allowance, Quota, Requester, check_render_quota

# As floats, these add up to 0.30000000000000004, 0.011489280000000001 and 0.7999999999999999.
COSTS = (("0.1", "0.2"), ("0.00382976",) * 3, ("0.1",) * 8, ("1234567.000000001", "0.000000002"))


class Shown(Body):
    cost: Number


@pytest.mark.parametrize("costs", COSTS)
def test_sums_are_exact(
    database: Database, file: File, add_render: Callable[[], Render], costs: tuple[str, ...]
) -> None:
    total, now = sum(map(Decimal, costs)), clock.now()
    renders = [add_render() for _ in costs]
    with database.write() as session:
        for render, cost in zip(renders, costs, strict=True):
            session.execute(update(Render).where(Render.id == render.id).values(cost=float(cost)))
    with database.read() as session:
        unfinished = usage_queries.cost_of_month(session, user_id=file.user_id, api_key_id=None, moment=now)
    assert unfinished == total

    with database.write() as session:
        for render in renders:
            ended = {"status": RenderStatus.COMPLETED, "completed_at": now}
            session.execute(update(Render).where(Render.id == render.id).values(**ended))
            usage_queries.add_completed(session, render_id=render.id)
        today = now.date()
        (day,) = usage_queries.list_days(session, user_id=file.user_id, first=today, last=today)
        month = usage_queries.cost_of_month(session, user_id=file.user_id, api_key_id=None, moment=now)
    assert (day.cost, month) == (total, total)
    assert json.loads(Shown(cost=month).model_dump_json(), parse_float=Decimal) == {"cost": total}

    allowance = Allowance(
        media=MediaLimits.from_settings(Settings()),
        quota=Quota(max_cost_per_month=float(total + Decimal("0.7"))),
    )
    with database.read() as session:
        asked = Requester(id=file.user_id, key_id=None, allowance=allowance)
        check_render_quota(session, asked, cost=0.7, is_made=False)
        with pytest.raises(TooManyRequests):
            check_render_quota(session, asked, cost=0.700000001, is_made=False)
