"""What was used, and what is left."""

from datetime import UTC, datetime

import pytest

from app.accounts.tables import User
from app.platform import clock
from app.usage.tables import DailyUsage

NOVEMBER = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture
def used(client, database, monkeypatch):
    """Some days of ann's and of somebody else's, in the November of the server's clock."""
    monkeypatch.setattr(clock, "_source", lambda: NOVEMBER)
    with database.write() as session:
        ann = session.query(User).one()
        session.add(User(id="other", name="other", created_at=clock.now()))
        session.flush()
        for user_id, day, engine, key, cost in (
            (ann.id, "2026-10-31", "regen-4x", "", 8.0),
            (ann.id, "2026-11-01", "regen-4x-lite", "", 1.0),
            (ann.id, "2026-11-01", "regen-4x", "one", 2.0),
            (ann.id, "2026-11-01", "regen-4x", "two", 4.0),
            (ann.id, "2026-11-30", "regen-4x", "", 16.0),
            ("other", "2026-11-01", "regen-4x", "", 32.0),
        ):
            session.add(
                DailyUsage(
                    user_id=user_id,
                    day=datetime.fromisoformat(day).date(),
                    engine=engine,
                    api_key_id=key,
                    renders=1,
                    gigapixels=cost / 2,
                    cost=cost,
                )
            )
    return client


def usage(client, **days):
    answer = client.get("/v1/usage", params=days)
    assert answer.status_code == 200, answer.text
    return answer.json()["usage"]


def test_by_day_and_engine(used, clip):
    with clip.open("rb") as content:
        render = used.post("/v1/upscale", files={"file": content}).json()["render"]
    month = usage(used)
    assert (month["from"], month["to"]) == ("2026-11-01", "2026-11-30")
    assert month["days"] == [
        {"day": "2026-11-01", "engine": "regen-4x", "renders": 2, "gigapixels": 3, "cost": 6},
        {"day": "2026-11-01", "engine": "regen-4x-lite", "renders": 1, "gigapixels": 0.5, "cost": 1},
        {"day": "2026-11-30", "engine": "regen-4x", "renders": 1, "gigapixels": 8, "cost": 16},
    ]
    assert month["totals"] == {
        "renders": 4,
        "gigapixels": 11.5,
        "cost": 23,
        "monthCost": pytest.approx(23 + render["cost"]),
        "storageBytes": clip.stat().st_size,
        "queuedRenders": 1,
        "runningRenders": 0,
    }
    assert month["limits"]["maxUploadBytes"] == 2 * 1024**3
    assert "maxQueuedRenders" not in month["limits"], "there is none"
    one_day = {"from": "2026-10-31", "to": "2026-10-31"}
    assert [day["cost"] for day in usage(used, **one_day)["days"]] == [8]


def test_limits_are_the_effective_ones(serve, settings, key, database):
    with database.write() as session:
        ann = session.query(User).one()
        ann.limits, ann.max_running_renders = {"max_storage_bytes": 5, "requests": "9/minute"}, 3
    server_limits = {"max_storage_bytes_per_user": 7, "max_cost_per_month_per_user": 1.5}
    client = serve(settings.model_copy(update={**server_limits, "max_running_segments_per_user": 2}), key=key)
    limits = usage(client)["limits"]
    assert (
        limits.items()
        >= {
            "requests": "9/minute",
            "maxStorageBytes": 5,
            "maxCostPerMonth": 1.5,
            "maxRunningRenders": 3,
            "maxRunningSegments": 2,
        }.items()
    )


def test_days_that_make_no_sense(client):
    for days in (
        {"from": "yesterday"},
        {"from": "2026-11-02", "to": "2026-11-01"},
        {"from": "2025-01-01", "to": "2026-11-01"},
        {"to": "0001-01-01"},
    ):
        answer = client.get("/v1/usage", params=days)
        assert answer.status_code == 400
        assert "`from`" in answer.json()["errors"][0]["message"]
