"""The clean-up on SQLite with local files, and on PostgreSQL with an S3 server. Rows are made old, nobody sleeps."""

import random
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.accounts import queries as account_queries
from app.accounts import service as account_service
from app.cleanup import queries as cleanup_queries
from app.cleanup import service
from app.cleanup.service import CleanUp, Removed, RetentionRules
from app.files.service import find_file_to_use
from app.files.tables import File
from app.platform.errors import NotFound, StorageError
from app.platform.secrets import new_id
from app.platform.storage.contract import Storage
from app.platform.storage.keys import input_key, output_key, thumbnail_key
from app.renders.service import find_render
from app.renders.statuses import SegmentStatus
from app.renders.tables import Render, Segment
from tests.integration.aged_rows import DAY, AgedRows, ago, leavings
from tests.integration.rows import a_render
from tests.integration.work.test_work_at_once import on_postgresql, while_it_waits

# Each a different length, so that none can stand for another.
RULES = RetentionRules(keep_files=5 * DAY, keep_results=7 * DAY, settled=600, url_lifetime=2 * DAY)
JUST_NOW = 60.0


Run = Callable[..., Removed]


@pytest.fixture
def clean_up(place: AgedRows) -> Run:
    """One run, after a look at what it would do: `clean_up(keep_files=None)`."""

    def run(**rules: float | None) -> Removed:
        clean_up = CleanUp(database=place.database, storage=place.storage, rules=replace(RULES, **rules))
        foreseen = clean_up.preview()
        removed = clean_up.run()
        assert removed == foreseen
        return removed

    return run


def test_what_ended_renders_left_behind_is_removed_once_nobody_writes_any_more(
    place: AgedRows, clean_up: Run
) -> None:
    file_id = place.add_file(age=DAY)
    longer = RULES.settled + JUST_NOW
    cases = {
        place.add_render(file_id, "completed", ended=longer): True,
        place.add_render(file_id, "failed", ended=longer): True,
        place.add_render(file_id, "completed", ended=JUST_NOW): False,
        place.add_render(file_id, "failed", ended=JUST_NOW): False,
        place.add_render(file_id, "queued"): False,
        place.add_render(file_id, "processing"): False,
    }
    results = place.keys()
    for render_id in cases:
        place.put(*leavings(render_id))

    assert clean_up() == Removed(renders_cleaned=2)
    left = {key for render_id, is_due in cases.items() if not is_due for key in leavings(render_id)}
    assert place.keys() == results | left
    assert not clean_up()


def test_so_are_the_rows_of_their_segments_and_nobody_sees_it(
    place: AgedRows, clean_up: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "SEGMENT_ROWS", 2)
    file_id = place.add_file(age=DAY)
    ended = RULES.settled + JUST_NOW
    completed = place.add_render(file_id, "completed", ended=ended)
    failed = place.add_render(file_id, "failed", ended=ended)
    others = [
        place.add_render(file_id, "completed", ended=JUST_NOW),
        place.add_render(file_id, "processing"),
    ]
    statuses = [SegmentStatus.DONE] * 3 + [SegmentStatus.FAILED] * 2
    with place.database.write() as session:
        session.add_all(
            Segment(
                id=new_id(),
                render_id=render_id,
                position=position,
                status=status,
                created_at=ago(DAY),
                plan="a plan",
                frames=10,
                frames_done=10 if status is SegmentStatus.DONE else position,
            )
            for render_id in (completed, failed, *others)
            for position, status in enumerate(statuses)
        )

    def plans(render_id: str) -> list[str]:
        with place.database.read() as session:
            return list(session.scalars(select(Segment.plan).where(Segment.render_id == render_id)))

    def progress(render_id: str) -> float:
        with place.database.read() as session:
            user_id = place.render(render_id).user_id
            return find_render(session, render_id=render_id, user_id=user_id).progress

    before = [progress(render_id) for render_id in (completed, failed)]
    assert before == [1.0, 37 / 50]
    assert clean_up() == Removed(renders_cleaned=2)
    assert plans(completed) == []
    assert plans(failed) == [""] * 5
    assert [progress(render_id) for render_id in (completed, failed)] == before
    assert all(plans(render_id) == ["a plan"] * 5 for render_id in others)


def test_results_are_given_out_no_more_long_before_they_are_erased(place: AgedRows, clean_up: Run) -> None:
    assert RULES.keep_results is not None
    file_id = place.add_file(age=DAY)
    old = place.add_render(file_id, "completed", ended=RULES.keep_results + JUST_NOW)
    place.add_render(file_id, "completed", ended=RULES.keep_results - JUST_NOW)
    clean_up(keep_results=None)
    before = place.keys()

    assert clean_up() == Removed(results_withdrawn=1)
    assert place.render(old).files_removed_at is not None
    assert place.keys() == before, "a URL of a moment ago can still be read"
    place.make_older(old, RULES.url_lifetime - JUST_NOW)
    assert not clean_up()
    place.make_older(old, 2 * JUST_NOW)
    assert clean_up() == Removed(results_erased=1)
    assert place.keys() == before - {output_key(old, attempt=1), thumbnail_key(old, attempt=1)}
    row = place.render(old)
    assert (row.status, row.output_key, row.thumbnail_key) == ("completed", None, None)
    assert not clean_up()


def test_uploads_too(place: AgedRows, clean_up: Run) -> None:
    assert RULES.keep_files is not None
    old = place.add_file(age=RULES.keep_files + JUST_NOW)
    place.add_file(age=RULES.keep_files - JUST_NOW)
    before = place.keys()

    assert clean_up() == Removed(files_withdrawn=1)
    with pytest.raises(NotFound):
        submit(place, old)()
    assert place.keys() == before
    place.make_older(old, RULES.url_lifetime - JUST_NOW)
    assert not clean_up()
    place.make_older(old, 2 * JUST_NOW)
    assert clean_up() == Removed(files_erased=1)
    assert place.keys() == before - {input_key(old)}
    assert not clean_up()


def test_without_a_setting_everything_is_kept(place: AgedRows, clean_up: Run) -> None:
    file_id = place.add_file(age=1000 * DAY)
    place.add_render(file_id, "completed", ended=999 * DAY, cleaned_at=ago(998 * DAY))
    before = place.keys()

    assert not clean_up(keep_files=None, keep_results=None)
    assert place.keys() == before


def test_which_uploads_go_is_as_its_own_words_say(place: AgedRows, clean_up: Run) -> None:
    """Uploaded longer ago than that, no unfinished render, and the last one ended longer ago than that."""
    assert RULES.keep_files is not None
    chance = random.Random(20261122)
    expected = set()
    for _ in range(36):
        age = chance.choice([0.5, 1.5]) * RULES.keep_files
        renders = chance.choices(
            [("queued", None), ("processing", None), ("completed", 0.9), ("completed", 1.1), ("failed", 1.2)],
            weights=[1, 1, 1, 4, 4],
            k=chance.randrange(4),
        )
        file_id = place.add_file(age=age, is_stored=False)
        for status, part in renders:
            ended = None if part is None else part * RULES.keep_files
            place.add_render(file_id, status, ended=ended, is_stored=False)
        if age > RULES.keep_files and all(part is not None and part > 1 for _status, part in renders):
            expected.add(file_id)
    assert 5 < len(expected) < 25

    removed = clean_up()

    with place.database.read() as session:
        gone = set(session.scalars(select(File.id).where(File.removed_at.is_not(None))))
    assert gone == expected and removed.files_withdrawn == len(expected)


def test_a_render_that_the_version_before_ended_is_old_from_now_on(place: AgedRows, clean_up: Run) -> None:
    file_id = place.add_file(age=50 * DAY)
    render_id = place.add_render(file_id, "completed", ended=None)
    place.put(*leavings(render_id))

    assert not clean_up()
    place.make_older(render_id, RULES.settled + JUST_NOW)
    assert clean_up() == Removed(renders_cleaned=1)


def submit_in(session: Session, file_id: str, user_id: str) -> None:
    a_render(session, find_file_to_use(session, file_id=file_id, user_id=user_id))


def submit(place: AgedRows, file_id: str) -> Callable[[], None]:
    def run() -> None:
        with place.database.write() as session:
            submit_in(session, file_id, user_id)

    user_id = place.file(file_id).user_id
    return run


@on_postgresql
def test_a_render_is_submitted_before_its_file_is_given_up_or_after_it_never_between(place: AgedRows) -> None:
    assert RULES.keep_files is not None
    age = RULES.keep_files + JUST_NOW
    first, second = place.add_file(age=age), place.add_file(age=age)

    def give_up(file_id: str) -> bool:
        with place.database.write() as session:
            return cleanup_queries.give_up_file(session, file_id, unused_for=RULES.keep_files or 0)

    user_id = place.file(first).user_id
    with place.database.write() as session:
        submit_in(session, first, user_id)
        given_up = while_it_waits(place.database, lambda: give_up(first), session.commit)
    assert given_up is False
    assert place.file(first).removed_at is None

    with place.database.write() as session:
        assert cleanup_queries.give_up_file(session, second, unused_for=RULES.keep_files)
        with pytest.raises(NotFound):
            while_it_waits(place.database, submit(place, second), session.commit)
    assert place.file(second).removed_at is not None


class Broken:
    """A storage that refuses to delete some keys."""

    def __init__(self, storage: Storage, is_broken: Callable[[str], bool]) -> None:
        self._storage = storage
        self._is_broken = is_broken

    def list(self, prefix: str) -> Iterable[object]:
        return self._storage.list(prefix)

    def delete(self, key: str) -> None:
        if self._is_broken(key):
            raise StorageError("It is away.")
        self._storage.delete(key)


def test_what_cannot_be_removed_now_is_removed_later(place: AgedRows, clean_up: Run) -> None:
    file_ids = [place.add_file(age=DAY, removed_at=ago(RULES.url_lifetime + JUST_NOW)) for _ in range(6)]
    before = place.keys()

    def run(is_broken: Callable[[str], bool]) -> Removed:
        storage = Broken(place.storage, is_broken)
        return CleanUp(database=place.database, storage=storage, rules=RULES).run()  # type: ignore[arg-type]

    with pytest.raises(StorageError):
        run(lambda _key: True)
    assert place.keys() == before
    assert all(place.file(file_id).erased_at is None for file_id in file_ids)
    # One that is beyond help does not hold up the others.
    stuck = input_key(file_ids[0])
    assert run(lambda key: key == stuck) == Removed(files_erased=5)
    assert place.keys() == {stuck}
    assert clean_up() == Removed(files_erased=1)
    assert place.keys() == set()


def test_a_run_ends_when_it_is_told_to(place: AgedRows) -> None:
    for _ in range(3):
        place.add_file(age=DAY, removed_at=ago(RULES.url_lifetime + JUST_NOW))
    looks = iter([False, True])
    clean_up = CleanUp(
        database=place.database, storage=place.storage, rules=RULES, stopped=lambda: next(looks, True)
    )
    assert sum(asdict(clean_up.run()).values()) <= 1
    assert len(place.keys()) >= 2


@on_postgresql
def test_what_is_due_is_found_along_an_index(place: AgedRows) -> None:
    """However many rows there are whose turn is over or yet to come."""
    file_id = place.add_file(age=DAY)
    with place.database.write() as session:
        ended = place.add_render(file_id, "completed", ended=DAY, cleaned_at=ago(DAY))
        row = session.execute(select(Render.__table__).where(Render.id == ended)).mappings().one()
        rows = [{**row, "id": new_id()} for _ in range(3000)]
        session.execute(Render.__table__.insert(), rows)
        session.execute(update(Render).values(output_key=None))
    with place.database.connect(to_write=True) as connection:
        connection.exec_driver_sql("ANALYZE renders")
        connection.commit()
        for condition in (
            "cleaned_at IS NULL AND ended_at < now() ORDER BY ended_at",
            "output_key IS NOT NULL AND files_removed_at IS NULL AND ended_at < now() ORDER BY ended_at",
            "output_key IS NOT NULL AND files_removed_at < now() ORDER BY files_removed_at",
        ):
            plan = connection.exec_driver_sql(f"EXPLAIN SELECT id FROM renders WHERE {condition} LIMIT 100")
            text = "\n".join(row[0] for row in plan)
            assert "Seq Scan" not in text, text


def test_revoked_keys_are_listed_for_thirty_days_and_what_was_made_with_them_stays(
    place: AgedRows, clean_up: Run
) -> None:
    file_id = place.add_file(age=DAY)
    user_id = place.file(file_id).user_id

    def add_key(name: str, **columns: object) -> str:
        with place.database.write() as session:
            user = account_service.get_user(session, user_id=user_id)
            key = account_queries.add_key(
                session, key_id=new_id(), user=user, name=name, hint="regen_", digest=new_id(), scopes=()
            )
            for column, value in columns.items():
                setattr(key, column, value)
        return key.id

    add_key("in use")
    add_key("expired", expires_at=ago(90 * DAY))
    add_key("revoked lately", revoked_at=ago(29 * DAY))
    gone = add_key("revoked long ago", revoked_at=ago(31 * DAY))
    render_id = place.add_render(file_id, "completed", ended=JUST_NOW, api_key_id=gone)
    clean_up()
    with place.database.read() as session:
        listed = account_queries.list_keys(session)
        assert {key.name for key, user in listed if user.id == user_id} == {
            "in use",
            "expired",
            "revoked lately",
        }
    assert place.render(render_id).api_key_id == gone
