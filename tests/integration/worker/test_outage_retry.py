"""What an outage costs, what a worker that falls silent costs, and what may be told twice."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from app.platform.database import Database
from app.platform.errors import (
    AccessRefused,
    Canceled,
    FfmpegDiskFull,
    KeyNotFound,
    LeaseLost,
    PermanentError,
    StorageError,
    TransientError,
    Unavailable,
)
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.retry_policies import RetryPolicy
from app.platform.settings import Settings
from app.renders.statuses import RenderStatus, SegmentStatus
from app.renders.tables import Render, Segment
from app.work import outage_retry
from app.work.ledger import MOST_LONE_OUTAGES, WorkLedger
from app.work.outage_retry import OutageRetry, is_outage
from app.work.speeds import note_segment
from tests.integration.conftest import FACTS
from tests.servers.process import wait_until
from worker.transfers import StorageTransfers

MakeLedger = Callable[..., WorkLedger]


def never() -> bool:
    return False


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage_retry, "OUTAGE_RETRY", RetryPolicy.exponential(0.02, 5.0, jitter=(0.75, 1.0)))


def forget_pause(database: Database, row: Segment) -> None:
    with database.write() as session:
        session.merge(row).retry_at = None


def test_outages_in_a_row_are_counted_and_fail_nothing(
    make_ledger: MakeLedger, segment: Callable[[], Segment], database: Database
) -> None:
    ledger = make_ledger(max_attempts=1)
    pauses = []
    for _ in range(8):
        claim = ledger.claim()
        assert claim is not None
        pauses.append(ledger.postponed(claim))
        assert ledger.claim() is None, "it rests"
        forget_pause(database, segment())
    longest = [2, 4, 8, 16, 32, 60, 60, 60]
    assert all(0.75 * most <= pause <= most for pause, most in zip(pauses, longest, strict=True))
    row = segment()
    assert (row.status, row.failures, row.outages) == (SegmentStatus.WAITING, 0, 8)
    stale = ledger.claim()
    assert stale is not None
    ledger.hand_back(stale)
    assert ledger.postponed(stale) == 0
    assert segment().outages == 8


def test_a_unit_that_alone_meets_outages_fails_its_render_in_the_end(
    make_ledger: MakeLedger, segment: Callable[[], Segment], database: Database
) -> None:
    """While others of its kind are done between one and the next. An outage of all starts the count anew."""
    ledger = make_ledger(max_attempts=1)

    def postpone(*, others_go_on: bool) -> None:
        if others_go_on:
            note_segment(database, device="cpu", engine="regen-4x-lite", pixels=1, seconds=1)
        claim = ledger.claim()
        assert claim is not None
        ledger.postponed(claim)
        forget_pause(database, segment())

    postpone(others_go_on=True)
    assert segment().lone_outages == 0, "nothing was done between this one and the one before"
    for number in range(1, MOST_LONE_OUTAGES):
        postpone(others_go_on=True)
        assert (segment().status, segment().lone_outages) == (SegmentStatus.WAITING, number)
    postpone(others_go_on=False)
    assert (segment().status, segment().lone_outages) == (SegmentStatus.WAITING, 0)
    for _ in range(MOST_LONE_OUTAGES):
        postpone(others_go_on=True)
    row = segment().render
    assert row.status is RenderStatus.FAILED
    assert row.error == (
        "The video could not be processed: upscaling a part of it was postponed 25 times for lack of "
        "storage or disk space, while other videos were done."
    )


def test_a_render_whose_preparation_alone_meets_outages_fails_too(
    make_ledger: MakeLedger, add_render: Callable[[], Render], prepare: Callable[..., Any], database: Database
) -> None:
    bad, ledger = add_render(), make_ledger()
    for _ in range(MOST_LONE_OUTAGES + 1):
        claim = ledger.claim()
        assert claim is not None and claim.render_id == bad.id
        ledger.postponed(claim)
        other = add_render()
        prepare(ledger, ledger.claim(), segments=1)
        with database.write() as session:
            session.get_one(Render, bad.id).retry_at = None
            session.execute(update(Segment).values(status=SegmentStatus.DONE))
            session.get_one(Render, other.id).status = RenderStatus.COMPLETED
    with database.read() as session:
        assert session.get_one(Render, bad.id).status is RenderStatus.FAILED


def test_what_kills_its_worker_each_time_ends_after_three_times_as_many_attempts_and_rests_in_between(
    make_ledger: MakeLedger, segment: Callable[[], Segment], database: Database
) -> None:
    ledger = make_ledger(max_attempts=2, lease_seconds=-1.0)
    for number in range(1, 7):
        assert segment().status is SegmentStatus.WAITING
        assert ledger.claim() is not None
        assert len(ledger.give_back_expired()) == 1
        row = segment()
        assert (row.expiries, row.failures) == (number, 0)
        if number < 6:
            assert (row.retry_at is not None) == (number > 1)
            forget_pause(database, row)
    assert segment().render.status is RenderStatus.FAILED
    assert "stopped unexpectedly 6 times" in (segment().render.error or "")


def test_a_report_may_be_repeated_when_its_answer_was_lost(
    make_ledger: MakeLedger,
    add_render: Callable[[], Render],
    prepare: Callable[..., Any],
    database: Database,
) -> None:
    render, ledger = add_render(), make_ledger()
    preparing = ledger.claim()
    assert prepare(ledger, preparing, segments=1) == prepare(ledger, preparing, segments=1)
    upscaling = ledger.claim()
    assert upscaling is not None
    for _ in range(2):
        assert sum(ledger.segment_done(upscaling, storage_key="a").values()) == 1
    finishing = ledger.claim()
    assert finishing is not None
    with database.read() as session:
        row = session.get_one(Render, render.id)
        assert len(row.segments) == 1
    for _ in range(2):
        ledger.finished(finishing, output_key="v", thumbnail_key="p", output=FACTS, cost=1.0, warnings=[])
    with pytest.raises(LeaseLost):
        prepare(ledger, preparing, segments=1)


class BrokenStorage:
    """Knows what was removed. Refuses to give anything away, and where `is_shut` lets nobody in at all."""

    def __init__(self, *, is_shut: bool = False) -> None:
        self.removed: list[str] = []
        self.tries = 0
        self._is_shut = is_shut

    def delete(self, key: str) -> None:
        self.removed.append(key)

    def fetch(self, key: str, path: Path, *, in_parts: bool = True) -> None:
        self.tries += 1
        raise AccessRefused("Not for you.", detail="403")

    def check(self, *, beside: str) -> None:
        assert beside == "files/a/input"
        if self._is_shut:
            raise StorageError("Not for anybody.")


def transfers_with(storage: BrokenStorage, *, retry_seconds: float = 0.0) -> StorageTransfers:
    return StorageTransfers(storage=storage, outage_retry=OutageRetry(seconds=retry_seconds))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "removed"),
    [(LeaseLost("late"), ["key"]), (StorageError("away"), ["key"]), (Unavailable("commit unknown"), [])],
)
def test_what_was_stored_is_removed_only_when_no_row_can_name_it(
    error: Exception, removed: list[str]
) -> None:
    storage = BrokenStorage()
    with pytest.raises(type(error)), transfers_with(storage).removed_unless_reported("key"):
        raise error
    assert storage.removed == removed


@pytest.mark.parametrize("is_shut", [False, True])
def test_a_file_that_alone_is_refused_is_held_against_the_work_but_not_before_patience_ends(
    tmp_path: Path, is_shut: bool
) -> None:
    storage = BrokenStorage(is_shut=is_shut)
    transfers = transfers_with(storage, retry_seconds=0.05)
    with pytest.raises(StorageError if is_shut else TransientError) as caught:
        transfers.fetch("files/a/input", tmp_path / "input", cancelled=never)
    assert is_outage(caught.value) == is_shut
    assert storage.tries > 1


class SlowStorage(BrokenStorage):
    """Gives away each key's name, once `together` fetches wait for each other; lacks one key."""

    def __init__(self, *, together: int, lacks: str = "") -> None:
        super().__init__()
        self._meeting = threading.Barrier(together, timeout=20)
        self._lacks = lacks

    def fetch(self, key: str, path: Path, *, in_parts: bool = True) -> None:
        self.tries += 1
        self._meeting.wait()
        if key == self._lacks:
            raise KeyNotFound("gone")
        path.write_text(key)


def test_many_files_are_fetched_side_by_side(tmp_path: Path) -> None:
    files = {f"key-{number}": tmp_path / str(number) for number in range(32)}
    transfers_with(SlowStorage(together=8)).fetch_all(files, cancelled=never)
    assert [path.read_text() for path in files.values()] == list(files)


def test_the_first_file_that_cannot_be_fetched_ends_the_fetching(tmp_path: Path) -> None:
    files = {f"key-{number}": tmp_path / str(number) for number in range(400)}
    storage = SlowStorage(together=1, lacks="key-1")
    with pytest.raises(KeyNotFound):
        transfers_with(storage).fetch_all(files, cancelled=never)
    assert storage.tries < 400
    with pytest.raises(Canceled):
        transfers_with(storage).fetch_all(files, cancelled=lambda: True)


def test_after_an_outage_the_missing_files_are_fetched_and_a_hanging_transfer_harms_none(
    tmp_path: Path,
) -> None:
    """One request breaks off, and one answers only after another has fetched the same file, or was called off."""
    go_on, late = threading.Event(), threading.Event()

    class FaultyStorage(BrokenStorage):
        def fetch(self, key: str, path: Path, *, in_parts: bool = True) -> None:
            first_time = key not in asked
            asked.append(key)
            if key == "key-7" and first_time:
                raise StorageError("away")
            if key == "key-40" and first_time:
                go_on.wait(20)
                path.write_text(key)
                late.set()
                return
            path.write_text(key)

    asked: list[str] = []
    files = {f"key-{number}": tmp_path / str(number) for number in range(200)}
    transfers = StorageTransfers(
        storage=FaultyStorage(),  # type: ignore[arg-type]
        outage_retry=OutageRetry(seconds=60, stall_seconds=0.3),
    )
    transfers.fetch_all(files, cancelled=never)
    assert {key: asked.count(key) for key in set(asked) if asked.count(key) > 1} == {"key-7": 2, "key-40": 2}
    go_on.set()
    assert late.wait(10)
    wait_until(lambda: not transfers.outage_retry.has_hanging_transfer, what="it is over")
    assert [path.read_text() for path in files.values()] == list(files)

    go_on.clear()
    late.clear()
    asked.clear()
    (tmp_path / "40").unlink()
    with pytest.raises(Canceled):
        transfers.fetch("key-40", tmp_path / "40", cancelled=lambda: "key-40" in asked)
    go_on.set()
    assert late.wait(10)
    wait_until(lambda: not (tmp_path / "40").exists(), what="the late file is gone")


def test_an_outage_is_ridden_out_for_as_long_as_patience_lasts() -> None:
    tries: list[int] = []

    def away_at_first() -> str:
        tries.append(1)
        if len(tries) < 4:
            raise StorageError("away")
        return "done"

    assert OutageRetry(seconds=60).call(away_at_first, cancelled=never) == "done"
    tries.clear()
    with pytest.raises(StorageError):
        OutageRetry(seconds=0).call(away_at_first, cancelled=never)
    assert len(tries) == 1
    tries.clear()
    with pytest.raises(StorageError):
        OutageRetry(seconds=60).call(away_at_first, cancelled=lambda: len(tries) == 2)
    assert len(tries) == 2


@pytest.mark.parametrize("error", [KeyNotFound("gone"), PermanentError("damaged"), ValueError("a defect")])
def test_what_is_no_outage_is_not_waited_out(error: Exception) -> None:
    def fail() -> None:
        raise error

    assert not is_outage(error)
    with pytest.raises(type(error)):
        OutageRetry(seconds=60).call(fail, cancelled=never)


def test_a_transfer_that_hangs_can_be_called_off_and_is_undone_when_it_succeeds_late() -> None:
    retry, go_on, undone = OutageRetry(seconds=60), threading.Event(), threading.Event()
    with pytest.raises(Canceled):
        retry.transfer(lambda: go_on.wait(60) and None, cancelled=lambda: True, undo=undone.set)
    assert retry.has_hanging_transfer
    assert not undone.is_set()
    go_on.set()
    assert undone.wait(10)
    wait_until(lambda: not retry.has_hanging_transfer, what="it is over")


def test_an_ffmpeg_that_finds_no_room_says_so(clip: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    runner = FfmpegRunner.for_work(Settings())
    with pytest.raises(FfmpegDiskFull) as caught:
        runner.run(
            runner.output(runner.input(clip)["v:0"], Path("/dev/full"), f="rawvideo"), purpose="trying"
        )
    assert is_outage(caught.value)
