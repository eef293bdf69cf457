"""Previews as workers claim them, on SQLite and PostgreSQL. Rows are made old, nobody sleeps."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from fractions import Fraction

import pytest
from sqlalchemy import update

from app.accounts import queries as account_queries
from app.cleanup.orphans import find_orphans
from app.cleanup.service import CleanUp, Removed, RetentionRules
from app.files.service import delete_file, find_file_to_use
from app.files.tables import File
from app.platform.database import Database, database_now
from app.platform.errors import Conflict, LeaseLost, NotFound, PermanentError, TooManyRequests
from app.platform.media.limits import MediaLimits
from app.platform.secrets import new_id
from app.platform.settings import Settings
from app.platform.storage.contract import Storage
from app.platform.storage.keys import after_key, before_key
from app.previews.service import KEPT_SECONDS, PreviewLedger, create_preview, delete_preview
from app.previews.tables import Preview
from app.renders.statuses import RenderStatus
from models.catalog import DEFAULT_ENGINE, ENGINES
from tests.integration.aged_rows import DAY, AgedRows, ago

LIMITS = MediaLimits.from_settings(Settings())
MOST_OPEN = 3


@pytest.fixture
def add_preview(database: Database, file: File) -> Callable[..., str]:
    def add(*, file_id: str = "", **columns: object) -> str:
        with database.write() as session:
            preview = create_preview(
                session,
                file=find_file_to_use(session, file_id=file_id or file.id, user_id=file.user_id),
                engine=ENGINES[DEFAULT_ENGINE],
                at_seconds=Fraction(1, 30),
                crop=None,
                limits=LIMITS,
                max_open=MOST_OPEN,
            )
            session.flush()
            if columns:
                session.execute(update(Preview).where(Preview.id == preview.id).values(**columns))
            return preview.id

    return add


@pytest.fixture
def make_preview_ledger(database: Database) -> Callable[[str], PreviewLedger]:
    def make(worker: str) -> PreviewLedger:
        return PreviewLedger(database=database, worker=worker, lease_seconds=30, max_attempts=3)

    return make


@pytest.fixture
def ledger(make_preview_ledger: Callable[[str], PreviewLedger]) -> PreviewLedger:
    return make_preview_ledger("worker-1")


def read(database: Database, preview_id: str) -> Preview:
    with database.read() as session:
        return session.get_one(Preview, preview_id)


def change(database: Database, preview_id: str, **columns: object) -> None:
    with database.write() as session:
        session.execute(update(Preview).where(Preview.id == preview_id).values(**columns))


def fall_silent(database: Database, preview_id: str) -> None:
    change(database, preview_id, lease_expires_at=database_now(plus_seconds=-1))


def complete(ledger: PreviewLedger, claim: object) -> None:
    ledger.completed(claim, crop=None, before_key="before", after_key="after", warnings=[])  # type: ignore[arg-type]


def test_users_take_turns(database: Database, add_preview: Callable[..., str], ledger: PreviewLedger) -> None:
    """Whoever had the fewest begun lately is next, however many another asked for before."""
    with database.write() as session:
        other = account_queries.add_user(session, user_id=new_id(), name="other").id
    first, second, third = (
        add_preview(created_at=database_now(plus_seconds=-seconds)) for seconds in (3, 2, 1)
    )
    change(database, third, user_id=other)
    jobs = [ledger.claim() for _ in range(3)]
    assert [job.claim.preview_id for job in jobs if job] == [first, third, second]


def test_the_oldest_first_and_each_once(
    add_preview: Callable[..., str], make_preview_ledger: Callable[[str], PreviewLedger]
) -> None:
    made = [add_preview() for _ in range(MOST_OPEN)]
    ledgers = [make_preview_ledger(f"worker-{number}") for number in range(8)]
    assert ledgers[0].any_waits()
    start = threading.Barrier(len(ledgers))

    def claim(ledger: PreviewLedger) -> str | None:
        start.wait()
        job = ledger.claim()
        return None if job is None else job.claim.preview_id

    with ThreadPoolExecutor(len(ledgers)) as pool:
        claimed = list(pool.map(claim, ledgers))

    # On PostgreSQL one that finds a row just taken may come away with nothing, once.
    rest = [job.claim.preview_id for _ in made if (job := ledgers[0].claim()) is not None]
    assert sorted([one for one in claimed if one is not None] + rest) == sorted(made)
    assert not ledgers[0].any_waits()


def test_so_many_of_a_user_are_open_whoever_asks_at_once(add_preview: Callable[..., str]) -> None:
    start = threading.Barrier(8)

    def add(_number: int) -> bool:
        start.wait()
        try:
            add_preview()
        except TooManyRequests:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(add, range(8))) == MOST_OPEN


def test_a_lease_that_runs_out_gives_it_to_another(
    database: Database, add_preview: Callable[..., str], make_preview_ledger: Callable[[str], PreviewLedger]
) -> None:
    preview_id = add_preview()
    silent, other = make_preview_ledger("silent"), make_preview_ledger("other")
    late = silent.claim()
    assert late is not None
    assert other.claim() is None
    assert silent.renew(late.claim)
    fall_silent(database, preview_id)
    taken = other.claim()
    assert taken is not None
    assert (taken.claim.preview_id, taken.claim.attempt) == (preview_id, 2)

    assert not silent.renew(late.claim)
    with pytest.raises(LeaseLost):
        complete(silent, late.claim)
    silent.failed(late.claim, PermanentError("Late."))
    silent.hand_back(late.claim)
    assert read(database, preview_id).status is RenderStatus.PROCESSING
    complete(other, taken.claim)
    # The answer may have been lost.
    complete(other, taken.claim)
    row = read(database, preview_id)
    assert (row.status, row.failures, row.after_key) == (RenderStatus.COMPLETED, 1, "after")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_three_failures_of_any_kind_end_it(
    database: Database, add_preview: Callable[..., str], ledger: PreviewLedger
) -> None:
    preview_id = add_preview()
    job = ledger.claim()
    assert job is not None
    ledger.failed(job.claim, RuntimeError("once"))
    assert ledger.claim() is None, "it rests"
    change(database, preview_id, retry_at=None)
    assert ledger.claim() is not None
    fall_silent(database, preview_id)
    job = ledger.claim()
    assert job is not None
    ledger.hand_back(job.claim)
    job = ledger.claim()
    assert job is not None, "whoever hands it back is not blamed"
    ledger.postponed(job.claim)
    assert ledger.claim() is None
    change(database, preview_id, retry_at=None)
    assert ledger.claim() is not None
    fall_silent(database, preview_id)

    assert ledger.claim() is None
    row = read(database, preview_id)
    assert (row.status, row.error) == (
        RenderStatus.FAILED,
        "The preview could not be made: it failed 3 times.",
    )
    assert row.ended_at is not None


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_what_cannot_be_mended_ends_it_at_once(
    database: Database, add_preview: Callable[..., str], ledger: PreviewLedger
) -> None:
    preview_id = add_preview()
    job = ledger.claim()
    assert job is not None
    ledger.failed(job.claim, PermanentError("There is no such frame."))

    row = read(database, preview_id)
    assert (row.status, row.error, row.failures) == (RenderStatus.FAILED, "There is no such frame.", 0)


def test_a_file_is_not_removed_from_under_a_preview(
    database: Database, place: AgedRows, storage: Storage, file: File, add_preview: Callable[..., str]
) -> None:
    rules = RetentionRules(keep_files=DAY, keep_results=None, settled=60.0, url_lifetime=DAY)
    file_id = place.add_file(age=2 * DAY)
    preview_id = add_preview(file_id=file_id)
    with pytest.raises(Conflict):
        delete_file(database, storage, file_id=file_id, user_id=file.user_id)
    clean_up = CleanUp(database=database, storage=storage, rules=rules)
    assert clean_up.run() == Removed()

    delete_preview(database, storage, preview_id=preview_id, user_id=file.user_id)
    delete_file(database, storage, file_id=file_id, user_id=file.user_id)
    with pytest.raises(NotFound):
        add_preview(file_id=file_id)


def test_after_a_day_they_are_removed_with_their_images(
    database: Database, place: AgedRows, storage: Storage, add_preview: Callable[..., str]
) -> None:
    clean_up = CleanUp(database=database, storage=storage, rules=RetentionRules.from_settings(Settings()))
    file_id = place.add_file(age=60)
    old, waiting, new = (add_preview(file_id=file_id) for _ in range(3))
    for preview_id in (old, new):
        keys = [make(preview_id, attempt=2, suffix=".png") for make in (before_key, after_key)]
        place.put(*keys, before_key(preview_id, attempt=1, suffix=".png"))
        change(
            database, preview_id, status=RenderStatus.COMPLETED, ended_at=ago(60), before_key=keys[0], after_key=keys[1]
        )  # fmt: skip
    place.put(lost := after_key(new_id(), attempt=1, suffix=".jpg"), "previews/notes")
    kept = place.keys()
    assert clean_up.run() == clean_up.preview() == Removed()
    late = before_key(new, attempt=1, suffix=".png")
    found = find_orphans(database, storage, least_age=timedelta(0))
    assert set(found.keys) == {lost, late, before_key(old, attempt=1, suffix=".png")}

    for preview_id in (old, waiting):
        change(database, preview_id, created_at=ago(KEPT_SECONDS + 1))
    assert clean_up.preview() == clean_up.run() == Removed(previews_removed=2)
    assert place.keys() == {key for key in kept if old not in key}
    with database.read() as session:
        assert [session.get(Preview, one) is None for one in (old, waiting, new)] == [True, True, False]
