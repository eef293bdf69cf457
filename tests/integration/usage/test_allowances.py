"""Quotas: concurrent requests cannot exceed one together, on either database."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from functools import partial

import pytest
from sqlalchemy import func, select, update

from app.accounts.limits import Limits
from app.files.tables import File
from app.platform import clock
from app.platform.database import Database
from app.platform.errors import LimitExceeded, TooManyRequests
from app.platform.media.info import VideoProperties
from app.platform.media.limits import MediaLimits
from app.platform.secrets import new_id
from app.platform.settings import Settings
from app.renders.statuses import RenderStatus
from app.renders.tables import Render
from app.usage import queries as usage_queries
from app.usage.allowances import (
    Allowance,
    Quota,
    Requester,
    allowance_of,
    check_file_quota,
    check_render_quota,
    seconds_to_next_month,
)
from app.usage.tables import DailyUsage
from app.work.ledger import WorkLedger
from tests.integration.rows import a_file, a_render

MEDIA = MediaLimits.from_settings(Settings())
AT_ONCE = 50
FACTS = VideoProperties(width=64, height=48, frame_rate=Fraction(25), duration_seconds=Fraction(2), frames=50)


def make_render(
    database: Database, file: File, allowance: Allowance, *, api_key_id: str | None = None
) -> bool:
    try:
        with database.write() as session:
            a_render(session, session.merge(file), allowance=allowance, key_id=api_key_id)
    except TooManyRequests:
        return False
    return True


def at_once(call: Callable[[], bool]) -> int:
    """How many of many calls at once return True."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        return sum(future.result() for future in [threads.submit(call) for _ in range(AT_ONCE)])


@pytest.fixture
def cost(database: Database, file: File) -> float:
    """Of one render of the file."""
    assert make_render(database, file, Allowance(media=MEDIA))
    with database.write() as session:
        render = session.scalars(select(Render)).one()
        render.status = RenderStatus.FAILED
        return render.cost


def test_no_more_renders_are_queued_and_no_more_is_spent_than_allowed(
    database: Database, file: File, cost: float
) -> None:
    queue = Allowance(media=MEDIA, quota=Quota(max_queued_renders=7))
    assert at_once(partial(make_render, database, file, queue)) == 7

    # What is under way counts, what failed does not, nor who else made it.
    key = new_id()
    spend = Allowance(media=MEDIA, key_quota=Quota(max_cost_per_month=3.5 * cost))
    assert at_once(partial(make_render, database, file, spend, api_key_id=key)) == 3
    with database.write() as session:
        session.execute(update(Render).values(status=RenderStatus.FAILED))
    assert make_render(database, file, spend, api_key_id=key)


def test_no_more_is_stored_than_allowed(database: Database, file: File) -> None:
    allowance = Allowance(
        media=MEDIA, quota=Quota(max_storage_bytes=105), key_quota=Quota(max_storage_bytes=100)
    )

    def store() -> bool:
        try:
            with database.write() as session:
                asked = Requester(id=file.user_id, key_id="key", allowance=allowance)
                check_file_quota(session, asked, size_bytes=9)
                row = a_file(file.user_id)
                row.size_bytes = 9
                session.add(row)
        except LimitExceeded:
            return False
        return True

    assert at_once(store) == 11  # beside the one byte that was there
    with database.write() as session:
        assert session.scalar(select(func.sum(File.size_bytes))) == 100
        session.execute(update(File).where(File.id == file.id).values(removed_at=clock.now()))
    assert not store(), "one byte is too few"
    with database.read() as session:
        asked = Requester(id=file.user_id, key_id=None, allowance=allowance)
        check_file_quota(session, asked, size_bytes=6, is_made=False)


def test_a_months_cost_is_that_of_the_month_and_an_estimate_only_asks(
    database: Database, file: File, cost: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "_source", lambda: datetime(2026, 11, 30, 23, 59, 30, tzinfo=UTC))
    allowance = Allowance(media=MEDIA, quota=Quota(max_cost_per_month=5 * cost))
    with database.write() as session:
        for day, factor in (("2026-10-31", 50), ("2026-11-01", 2), ("2026-11-30", 2), ("2026-12-01", 50)):
            session.add(
                DailyUsage(
                    user_id=file.user_id,
                    day=datetime.fromisoformat(day).date(),
                    engine="regen-4x",
                    api_key_id="",
                    renders=1,
                    gigapixels=1.0,
                    cost=factor * cost,
                )
            )

    def ask(price: float) -> None:
        with database.read() as session:
            asked = Requester(id=file.user_id, key_id=None, allowance=allowance)
            check_render_quota(session, asked, cost=price, is_made=False)

    ask(0.99 * cost)
    with pytest.raises(TooManyRequests, match="this month cost") as refused:
        ask(1.01 * cost)
    assert refused.value.retry_after_seconds == 30
    monkeypatch.setattr(clock, "_source", lambda: datetime(2027, 1, 1, tzinfo=UTC))
    ask(5 * cost)


@pytest.mark.parametrize(
    ("moment", "days"),
    [
        (datetime(2026, 12, 1, tzinfo=UTC), 31),
        (datetime(2028, 2, 28, tzinfo=UTC), 2),
        (datetime(2026, 1, 31, tzinfo=UTC), 1),
    ],
)
def test_a_month_ends(moment: datetime, days: int) -> None:
    assert seconds_to_next_month(moment) == days * 24 * 3600


def test_a_users_limit_replaces_the_servers_and_a_keys_tightens_it() -> None:
    settings = Settings(max_queued_renders_per_user=10, max_upload_bytes=1000, rate_limit="10/minute")

    def allowed(user: Limits, key: Limits) -> Allowance:
        rows = {"user": user.model_dump(exclude_none=True), "key": key.model_dump(exclude_none=True)}
        return allowance_of(settings, user=rows["user"], key=rows["key"])

    plain = allowed(Limits(), Limits())
    assert (plain.media, plain.max_upload_bytes) == (MediaLimits.from_settings(settings), 1000)
    assert (plain.requests, plain.quota) == ("10/minute", Quota(max_queued_renders=10))

    generous = allowed(
        Limits(max_queued_renders=50, max_upload_bytes=5000, requests="99/minute", max_duration_seconds=60),
        Limits(max_queued_renders=99, max_duration_seconds=30, max_upload_bytes=500, requests="1/second"),
    )
    assert generous.quota == Quota(max_queued_renders=50)
    assert generous.key_quota == Quota(max_queued_renders=99)
    assert (generous.requests, generous.key_requests) == ("99/minute", "1/second")
    assert generous.max_upload_bytes == 500, "nothing raises the server's own"
    assert generous.media.max_duration_seconds == 30
    assert generous.media.max_input_pixels == settings.max_input_pixels


def test_a_completed_render_is_counted_once(
    database: Database,
    file: File,
    make_ledger: Callable[..., WorkLedger],
    add_render: Callable[[], Render],
    prepare: Callable[..., object],
) -> None:
    """However often it is reported, and also when it is deleted later; one that failed is not counted at all."""
    ledger = make_ledger()
    for _ in range(2):
        render = add_render()
        prepare(ledger, ledger.claim(), segments=1)
        segment = ledger.claim()
        assert segment is not None
        ledger.segment_done(segment, storage_key="s")
        finish = ledger.claim()
        assert finish is not None
        for _report in range(2):
            ledger.finished(
                finish,
                output_key="o",
                thumbnail_key="t",
                output=FACTS,
                cost=0.5,
                warnings=[],
                output_bytes=1000,
            )
    add_render()
    failed = ledger.claim()
    assert failed is not None
    ledger.failed(failed, ValueError())
    today = clock.now().date()
    with database.write() as session:
        (day,) = usage_queries.list_days(session, user_id=file.user_id, first=today, last=today)
        assert (day.day, day.engine, day.renders, day.cost) == (today, render.engine, 2, 1.0)
        # The results count until they are removed.
        assert usage_queries.stored_bytes(session, user_id=file.user_id, moment=clock.now()) == 1 + 2 * 1000
        full = Allowance(media=MEDIA, quota=Quota(max_storage_bytes=2000))
        with pytest.raises(LimitExceeded, match="2,001 bytes in storage, of 2,000"):
            a_render(session, session.merge(file), allowance=full)
        session.execute(update(Render).where(Render.id == render.id).values(output_key=None))
        assert a_render(session, session.merge(file), allowance=full)
        assert day.gigapixels == Decimal(2 * 64 * 48 * 50) / 10**9
