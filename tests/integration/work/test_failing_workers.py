"""Units that fail on one worker go to another; a worker that alone fails is put into quarantine."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from app.platform.database import Database, database_now
from app.platform.errors import FfmpegInterrupted, PermanentError, TransientError
from app.platform.work_kinds import WorkQueue
from app.renders.statuses import RenderStatus
from app.renders.tables import Render, Segment
from app.work import worker_standing
from app.work.failed_attempts import PASS_OVER_SECONDS
from app.work.ledger import WorkLedger
from app.work.tables import FailedAttempt, WorkerProcess
from app.work.workers import WorkerStatus, count_workers, list_workers
from worker.registration import Registration

MakeLedger = Callable[..., WorkLedger]
AddRender = Callable[[], Render]
Prepare = Callable[..., object]

DAMAGED = PermanentError("The video is damaged.")


@pytest.fixture
def join(make_ledger: MakeLedger) -> MakeLedger:
    """A ledger whose worker has a row."""

    def make(worker: str, *, machine: str = "a", queues: object = tuple(WorkQueue)) -> WorkLedger:
        ledger = make_ledger(worker, machine=machine, queues=queues)
        Registration(ledger, device="cpu").beat()
        return ledger

    return make


def rested(database: Database) -> None:
    with database.write() as session:
        for table in (Render, Segment):
            session.execute(update(table).values(retry_at=None))


def status(database: Database, render: Render) -> RenderStatus:
    with database.read() as session:
        return session.get_one(Render, render.id).status


def worker_status(database: Database, name: str) -> WorkerStatus:
    with database.read() as session:
        (view,) = [view for view in list_workers(session) if view.name == name]
        return view.status


@pytest.mark.parametrize("machines", ["one", "two"])
@pytest.mark.parametrize("kind", ["prepare", "upscale", "finish"])
def test_what_failed_on_one_worker_goes_to_another_and_comes_back_in_time(
    database: Database, join: MakeLedger, add_render: AddRender, prepare: Prepare, kind: str, machines: str
) -> None:
    render = add_render()
    here = join("here")
    there = join("there", machine="a" if machines == "one" else "b")
    if kind != "prepare":
        prepare(here, here.claim(), segments=1)
    if kind == "finish":
        claim = here.claim()
        assert claim is not None
        here.segment_done(claim, storage_key="there")
    failed = here.claim()
    assert failed is not None and failed.kind == kind
    here.failed(failed, TransientError("once"))
    rested(database)
    assert here.claim() is None
    assert sum(here.ready_units().values()) == 1
    again = there.claim()
    assert again is not None and again.lease.row_id == failed.lease.row_id
    there.failed(again, TransientError("twice"))
    rested(database)
    # It failed on both: either may try again.
    third = here.claim()
    assert third is not None
    here.hand_back(third)
    # Others that do not get round to it are waited for no longer.
    with database.write() as session:
        session.execute(
            update(FailedAttempt).where(FailedAttempt.worker == "there").values(worker="gone", machine="c")
        )
    with database.write() as session:
        session.execute(
            update(FailedAttempt).values(failed_at=database_now(plus_seconds=-PASS_OVER_SECONDS - 1))
        )
    assert here.claim() is not None
    assert status(database, render) is not RenderStatus.FAILED


@pytest.mark.parametrize("gone", ["silent", "drained", "quarantined", "other queue"])
def test_a_worker_that_cannot_take_the_unit_is_not_waited_for(
    database: Database, join: MakeLedger, add_render: AddRender, gone: str
) -> None:
    render = add_render()
    here = join("here")
    join("there", machine="b", queues=[WorkQueue.GPU] if gone == "other queue" else tuple(WorkQueue))
    with database.write() as session:
        other = update(WorkerProcess).where(WorkerProcess.name == "there")
        if gone == "silent":
            session.execute(other.values(heartbeat_at=database_now(plus_seconds=-91)))
        elif gone != "other queue":
            session.execute(other.values({f"{gone}_since": database_now()}))
    claim = here.claim()
    assert claim is not None
    here.failed(claim, TransientError("once"))
    rested(database)
    claim = here.claim()
    assert claim is not None
    here.failed(claim, DAMAGED)
    assert status(database, render) is RenderStatus.FAILED


def test_a_unit_that_failed_is_left_only_to_workers_that_upscale_with_its_engine(
    database: Database, join: MakeLedger, add_render: AddRender, prepare: Prepare
) -> None:
    here, there = join("here"), join("there", machine="b")
    other, shared = add_render(), add_render()
    claims = []
    for _ in range(2):
        prepare(here, here.claim(), segments=1)
        claims.append(here.claim())
    with database.write() as session:
        session.execute(update(Render).where(Render.id == shared.id).values(engine="regen-4x"))
        session.execute(
            update(WorkerProcess).where(WorkerProcess.name == "there").values(engines=["regen-4x"])
        )
    for claim in claims:
        assert claim is not None
        here.failed(claim, TransientError("once"))
    rested(database)
    again = here.claim()
    assert again is not None and again.render_id == other.id
    assert here.claim() is None
    taken = there.claim()
    assert taken is not None and taken.render_id == shared.id


def test_a_verdict_needs_a_second_machine_where_there_is_one(
    database: Database, join: MakeLedger, add_render: AddRender
) -> None:
    render = add_render()
    here, neighbour, there = join("here"), join("neighbour"), join("there", machine="b")
    for ledger, ends in ((here, False), (there, True)):
        claim = ledger.claim()
        assert claim is not None
        ledger.failed(claim, DAMAGED)
        assert (status(database, render) is RenderStatus.FAILED) is ends
        rested(database)
        # The same machine's other worker has no word in this.
        assert neighbour.claim() is None


def test_one_machines_failures_end_no_render_that_another_could_do_but_not_for_ever(
    database: Database, join: MakeLedger, add_render: AddRender
) -> None:
    render = add_render()
    here = join("here")
    join("there", machine="b")
    for attempt in range(1, 10):
        claim = here.claim()
        assert claim is not None and status(database, render) is RenderStatus.PENDING, attempt
        here.failed(claim, TransientError("again"))
        rested(database)
        with database.write() as session:
            session.execute(update(FailedAttempt).values(failed_at=database_now(plus_seconds=-999)))
    assert status(database, render) is RenderStatus.FAILED


def test_a_worker_that_fails_while_others_succeed_is_in_quarantine_until_it_recovers(
    database: Database, join: MakeLedger, add_render: AddRender, prepare: Prepare
) -> None:
    bad, good = join("bad"), join("good", machine="b")
    renders = [add_render() for _ in range(5)]

    def fail() -> bool:
        claim = bad.claim()
        assert claim is not None
        return bad.failed(claim, DAMAGED)

    assert [fail(), fail(), fail()] == [False, False, False], "nobody else has done anything"
    claim = good.claim()
    assert claim is not None
    prepare(good, claim, segments=1)
    renders.append(add_render())
    last = bad.claim()
    assert last is not None
    assert bad.failed(last, DAMAGED)
    assert worker_status(database, "bad") is WorkerStatus.QUARANTINED
    assert worker_status(database, "good") is WorkerStatus.ACTIVE
    with database.read() as session:
        workforce = count_workers(session, lease_seconds=30)
        row = session.get_one(WorkerProcess, "bad")
        assert "The video is damaged." in (row.quarantine_reason or "")
    assert workforce.by_status[WorkerStatus.QUARANTINED] == 1
    assert any("quarantine" in warning for warning in workforce.warnings)
    assert RenderStatus.FAILED not in {status(database, render) for render in renders}
    bad.recover()
    assert worker_status(database, "bad") is WorkerStatus.ACTIVE


def test_bad_videos_that_fail_on_every_machine_blame_no_worker(
    database: Database, join: MakeLedger, add_render: AddRender, prepare: Prepare
) -> None:
    one, two, three = join("one"), join("two", machine="b"), join("three", machine="c")
    for _ in range(4):
        add_render()
        for ledger in (one, two):
            claim = ledger.claim()
            assert claim is not None
            assert not ledger.failed(claim, DAMAGED)
            rested(database)
        add_render()
        claim = three.claim()
        assert claim is not None
        prepare(three, claim, segments=1)
        claim = three.claim()
        assert claim is not None
        three.segment_done(claim, storage_key="there")
        claim = three.claim()
        assert claim is not None
        three.hand_back(claim)
        with database.write() as session:
            session.execute(
                update(Render).where(Render.id == claim.render_id).values(status=RenderStatus.COMPLETED)
            )


def test_an_operator_drains_a_worker_and_resumes_it(
    database: Database, join: MakeLedger, add_render: AddRender
) -> None:
    ledger = join("one")
    add_render()
    claim = ledger.claim()
    assert claim is not None
    with database.write() as session:
        assert worker_standing.drain(session, name="one")
        assert not worker_standing.drain(session, name="two")
    assert worker_status(database, "one") is WorkerStatus.DRAINING
    registration = Registration(ledger, device="cpu")
    registration.beat()
    assert registration.is_drained
    ledger.hand_back(claim)
    assert worker_status(database, "one") is WorkerStatus.DRAINED
    with database.read() as session:
        assert count_workers(session, lease_seconds=30).unserved == tuple(WorkQueue)
    with database.write() as session:
        worker_standing.quarantine(session, name="one", reason="for once")
        assert worker_standing.resume(session, name="one")
    registration.beat()
    assert not registration.is_drained and worker_status(database, "one") is WorkerStatus.ACTIVE


def test_failures_are_forgotten(database: Database, join: MakeLedger, add_render: AddRender) -> None:
    ledger = join("one")
    add_render()
    claim = ledger.claim()
    assert claim is not None
    ledger.failed(claim, TransientError("once"))
    with database.write() as session:
        session.execute(update(FailedAttempt).values(failed_at=database_now(plus_seconds=-25 * 3600)))
    assert ledger.take_sweep(every_seconds=timedelta(hours=1).total_seconds())
    with database.read() as session:
        assert session.scalars(select(FailedAttempt)).all() == []


@pytest.mark.parametrize("is_storm", [False, True])
def test_an_ffmpeg_that_is_killed_beside_those_of_other_renders_is_a_third_of_a_failure(
    database: Database, join: MakeLedger, add_render: AddRender, is_storm: bool
) -> None:
    """One whose work alone is killed fails as ever: the system ends what takes all memory."""
    killed = FfmpegInterrupted("The video program was killed.")
    ledger = join("one")
    if is_storm:
        add_render()
        claim = join("two").claim()
        assert claim is not None
        ledger.failed(claim, killed)
    render, attempts = add_render(), 0
    while not status(database, render).is_final:
        with database.write() as session:
            session.execute(update(Render).where(Render.id == render.id).values(retry_at=None))
        claim = ledger.claim()
        assert claim is not None and claim.render_id == render.id
        attempts += 1
        ledger.failed(claim, killed)
    assert attempts == (9 if is_storm else 3)
    with database.read() as session:
        error = session.get_one(Render, render.id).error
    assert error == f"The video could not be processed: reading it failed {attempts} times."


@pytest.mark.parametrize(("others_dead", "expiries"), [(3, 9), (4, 27)])
def test_what_kills_its_workers_ends_and_what_a_storm_kills_has_more_attempts(
    database: Database, join: MakeLedger, add_render: AddRender, others_dead: int, expiries: int
) -> None:
    """A unit that rests for a minute between its attempts ends three workers within two minutes."""
    ledger = join("one")
    for number in range(others_dead):
        join(f"dead {number}")
    with database.write() as session:
        dead = update(WorkerProcess).where(WorkerProcess.name != "one")
        session.execute(dead.values(heartbeat_at=database_now(plus_seconds=-31)))
    render = add_render()
    with database.write() as session:
        session.execute(update(Render).values(expiries=expiries - 2))
    for expected in (RenderStatus.PENDING, RenderStatus.FAILED):
        rested(database)
        assert ledger.claim() is not None
        with database.write() as session:
            session.execute(update(Render).values(lease_expires_at=database_now(plus_seconds=-1)))
        assert len(ledger.give_back_expired()) == 1
        assert status(database, render) is expected


def test_an_ffmpeg_that_a_storm_kills_is_a_ninth_of_a_failure(
    database: Database, join: MakeLedger, add_render: AddRender
) -> None:
    killed = FfmpegInterrupted("The video program was killed.")
    one, two = join("one"), join("two")
    renders = [add_render() for _ in range(5)]
    for _ in renders:
        claim = two.claim()
        assert claim is not None
        two.failed(claim, killed)
    with database.write() as session:
        session.execute(
            update(Render).where(Render.id == renders[0].id).values(expiries=8, retry_at=None),
        )
    for expected in (RenderStatus.PENDING, RenderStatus.FAILED):
        claim = one.claim()
        assert claim is not None and claim.render_id == renders[0].id
        one.failed(claim, killed)
        assert status(database, renders[0]) is expected
        with database.write() as session:
            session.execute(
                update(Render).where(Render.id == renders[0].id).values(expiries=26, retry_at=None),
            )
