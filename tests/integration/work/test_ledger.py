"""What workers may count on: one holder per unit of work, leases, attempts, and renders that only move forward."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.orm import Session

from app.platform import clock
from app.platform.database import Database
from app.platform.errors import LeaseLost, PermanentError, TransientError
from app.platform.media.info import VideoProperties
from app.platform.work_kinds import WorkKind, WorkQueue
from app.renders import queries as render_queries
from app.renders.progress import view_render
from app.renders.statuses import RenderStatus, SegmentStatus
from app.renders.tables import Render, Segment
from app.work.ledger import WorkLedger
from app.work.queries import Claim, Job

MakeLedger = Callable[..., WorkLedger]
AddRender = Callable[[], Render]
Prepare = Callable[..., int]


def status_of(database: Database, render: Render) -> RenderStatus:
    with database.read() as session:
        return session.get_one(Render, render.id).status


def error_of(database: Database, render: Render) -> str | None:
    with database.read() as session:
        return session.get_one(Render, render.id).error


def finish(ledger: WorkLedger, claim: Claim, facts: VideoProperties) -> None:
    ledger.finished(
        claim, output_key="out", thumbnail_key="thumb", output=facts, cost=2.5, warnings=["shortened"]
    )


def claimed(ledger: WorkLedger) -> Job:
    claim = ledger.claim()
    assert claim is not None
    return claim


@pytest.fixture
def facts() -> VideoProperties:
    from fractions import Fraction

    return VideoProperties(
        width=256, height=192, frame_rate=Fraction(30000, 1001), duration_seconds=Fraction(2), frames=60
    )


def place_of(session: Session, *rows: Render) -> list[int]:
    ids = [row.id for row in rows]
    places = render_queries.queue_positions(session, user_id=rows[0].user_id, render_ids=ids)
    return [places[row_id] for row_id in ids]


def test_a_render_passes_through_its_statuses_to_completion(
    database: Database,
    make_ledger: MakeLedger,
    add_render: AddRender,
    prepare: Prepare,
    facts: VideoProperties,
) -> None:
    ledger = make_ledger()
    assert ledger.claim() is None
    render = add_render()
    assert status_of(database, render) is RenderStatus.QUEUED

    claim = claimed(ledger)
    assert (claim.kind, claim.attempt) == (WorkKind.PREPARE, 1)
    assert status_of(database, render) is RenderStatus.PENDING
    assert prepare(ledger, claim, segments=2) == {WorkQueue.GPU: 2}
    assert status_of(database, render) is RenderStatus.PROCESSING

    first, second = claimed(ledger), claimed(ledger)
    assert [first.kind, second.kind] == [WorkKind.UPSCALE] * 2
    assert ledger.claim() is None
    assert [job.plan for job in first.segments] == ["number 0"]
    assert ledger.segment_done(second, storage_key="second") == {}
    assert ledger.segment_done(first, storage_key="first") == {WorkQueue.CPU: 1}

    last = claimed(ledger)
    assert last.kind is WorkKind.FINISH
    assert [job.storage_key for job in last.segments] == ["first", "second"]
    finish(ledger, last, facts)

    with database.read() as session:
        done = session.get_one(Render, render.id)
        assert (done.status, done.output_key, done.cost) == (RenderStatus.COMPLETED, "out", 2.5)
        assert done.output_frame_rate == facts.frame_rate
        assert done.warnings == ["shortened"]
        assert done.completed_at is not None
        assert view_render(session, done).progress == 1.0
    assert ledger.claim() is None


def test_queued_means_waiting(
    database: Database, make_ledger: MakeLedger, add_render: AddRender, prepare: Prepare
) -> None:
    """While segments wait for a worker no further render is taken off the queue."""
    ledger = make_ledger()
    first, second = add_render(), add_render()
    prepare(ledger, claimed(ledger), segments=2)
    assert claimed(ledger).kind is WorkKind.UPSCALE
    assert status_of(database, second) is RenderStatus.QUEUED
    with database.read() as session:
        assert place_of(session, second) == [1]
    assert claimed(ledger).kind is WorkKind.UPSCALE  # the last waiting segment of the first
    claim = claimed(ledger)
    assert (claim.kind, claim.render_id) == (WorkKind.PREPARE, second.id)
    assert status_of(database, first) is RenderStatus.PROCESSING


def test_queue_positions_count_from_one_in_order_of_arrival(
    database: Database, add_render: AddRender
) -> None:
    added = [add_render() for _ in range(3)]
    with database.read() as session:
        assert place_of(session, *added) == [1, 2, 3]


def test_many_workers_never_hold_the_same_work(
    make_ledger: MakeLedger, add_render: AddRender, prepare: Prepare
) -> None:
    add_render()
    ledger = make_ledger()
    prepare(ledger, claimed(ledger), segments=40)
    taken: list[str | None] = []

    def work(number: int) -> None:
        own = make_ledger(f"worker-{number}")
        while (claim := own.claim()) is not None:
            taken.append(claim.segment_id)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 40
    assert len(set(taken)) == 40


def test_a_lease_that_runs_out_gives_the_work_back_and_refuses_the_late_result(
    database: Database, make_ledger: MakeLedger, add_render: AddRender, prepare: Prepare
) -> None:
    render = add_render()
    zombie = make_ledger("zombie")
    prepare(zombie, claimed(zombie), segments=1)
    late = claimed(zombie)
    other = make_ledger("other")
    assert not other.give_back_expired()
    assert make_ledger("zombie", lease_seconds=-1.0).renew(late, frames_done=0)
    (expired,) = other.give_back_expired()
    assert (expired.kind, expired.segment_id, expired.attempt) == (WorkKind.UPSCALE, late.segment_id, 1)
    assert not other.give_back_expired()

    again = claimed(other)
    assert (again.segment_id, again.attempt) == (late.segment_id, 2)
    assert zombie.renew(late, frames_done=9) is False
    with pytest.raises(LeaseLost):
        zombie.segment_done(late, storage_key="zombie's")
    assert other.segment_done(again, storage_key="other's") == {WorkQueue.CPU: 1}
    assert [job.storage_key for job in claimed(other).segments] == ["other's"]
    assert status_of(database, render) is RenderStatus.PROCESSING


def test_a_heartbeat_keeps_the_lease_and_shows_progress(
    database: Database, make_ledger: MakeLedger, add_render: AddRender, prepare: Prepare
) -> None:
    render = add_render()
    ledger = make_ledger()
    prepare(ledger, claimed(ledger), segments=2)
    claim = claimed(make_ledger(lease_seconds=-1.0))
    assert ledger.renew(claim, frames_done=5)
    assert not ledger.give_back_expired()
    with database.read() as session:
        assert view_render(session, session.get_one(Render, render.id)).progress == 0.25


def test_a_failed_attempt_rests_and_the_last_one_fails_the_render(
    database: Database, make_ledger: MakeLedger, add_render: AddRender, prepare: Prepare
) -> None:
    render = add_render()
    ledger = make_ledger(max_attempts=2)
    prepare(ledger, claimed(ledger), segments=2)
    claim = claimed(ledger)
    ledger.failed(claim, TransientError("storage away"))
    assert status_of(database, render) is RenderStatus.PROCESSING
    assert claimed(ledger).segment_id != claim.segment_id  # the failed one rests
    assert ledger.claim() is None
    with database.write() as session:
        session.get_one(Segment, claim.segment_id).retry_at = None
    again = claimed(ledger)
    assert (again.segment_id, again.attempt) == (claim.segment_id, 2)
    ledger.failed(again, TransientError("storage away"))
    assert status_of(database, render) is RenderStatus.FAILED
    assert "failed 2 times" in (error_of(database, render) or "")
    assert ledger.ready_units().total() == 0


def test_a_permanent_error_fails_the_render_at_once_and_frees_the_workers(
    database: Database, make_ledger: MakeLedger, add_render: AddRender, prepare: Prepare
) -> None:
    render, following = add_render(), add_render()
    ledger = make_ledger()
    prepare(ledger, claimed(ledger), segments=3)
    broken, other = claimed(ledger), claimed(ledger)
    ledger.failed(broken, PermanentError("The video is damaged."))
    assert status_of(database, render) is RenderStatus.FAILED
    assert error_of(database, render) == "The video is damaged."
    assert ledger.renew(other, frames_done=3) is False
    with pytest.raises(LeaseLost):
        ledger.segment_done(other, storage_key="late")
    claim = claimed(ledger)
    assert (claim.kind, claim.render_id) == (WorkKind.PREPARE, following.id)


def test_work_handed_back_by_a_stopping_worker_is_not_counted_against_it(
    database: Database, make_ledger: MakeLedger, add_render: AddRender, prepare: Prepare
) -> None:
    add_render()
    ledger = make_ledger()
    prepare(ledger, claimed(ledger), segments=1)
    for attempt in range(1, 6):
        claim = claimed(ledger)
        assert claim.attempt == attempt
        ledger.hand_back(claim)
        assert ledger.ready_units() == {WorkQueue.GPU: 1}
    with database.read() as session:
        row = session.get_one(Segment, claim.segment_id)
        assert (row.failures, row.status) == (0, SegmentStatus.WAITING)


@pytest.mark.parametrize("step", [WorkKind.PREPARE, WorkKind.FINISH])
def test_a_worker_lost_while_preparing_or_finishing_leaves_the_status_as_it_is(
    database: Database,
    make_ledger: MakeLedger,
    add_render: AddRender,
    prepare: Prepare,
    facts: VideoProperties,
    step: WorkKind,
) -> None:
    render = add_render()
    ledger, zombie = make_ledger(), make_ledger("zombie", lease_seconds=-1.0)
    if step is WorkKind.FINISH:
        prepare(ledger, claimed(ledger), segments=1)
        ledger.segment_done(claimed(ledger), storage_key="only")
    late = claimed(zombie)
    assert late.kind is step
    before = status_of(database, render)
    assert len(ledger.give_back_expired()) == 1
    assert status_of(database, render) is before
    again = claimed(ledger)
    assert (again.kind, again.attempt) == (step, late.attempt + 1)
    with pytest.raises(LeaseLost):
        if step is WorkKind.PREPARE:
            prepare(zombie, late, segments=5)
        else:
            finish(zombie, late, facts)
    if step is WorkKind.PREPARE:
        assert prepare(ledger, again, segments=2) == {WorkQueue.GPU: 2}
    else:
        finish(ledger, again, facts)
    assert status_of(database, render) is not before


def test_ready_units_counts_what_free_workers_could_claim(
    make_ledger: MakeLedger, add_render: AddRender, prepare: Prepare
) -> None:
    ledger = make_ledger()
    assert ledger.ready_units().total() == 0
    add_render()
    add_render()
    assert ledger.ready_units() == {WorkQueue.CPU: 2}
    prepare(ledger, claimed(ledger), segments=3)
    assert ledger.ready_units() == {
        WorkQueue.GPU: 3
    }  # the queued render is not for taking while segments wait
    claimed(ledger)
    assert ledger.ready_units() == {WorkQueue.GPU: 2}
    claimed(ledger)
    assert ledger.ready_units() == {WorkQueue.GPU: 1, WorkQueue.CPU: 1}
    claimed(ledger)
    assert ledger.ready_units() == {WorkQueue.CPU: 1}


def test_the_next_render_is_prepared_once_fewer_segments_wait_than_run(
    database: Database, make_ledger: MakeLedger, add_render: AddRender, prepare: Prepare
) -> None:
    """So that many workers do not have to wait for it; while as many wait as run, it stays queued."""
    cpu, gpu = (make_ledger(queue.value, queues=[queue]) for queue in WorkQueue)
    _, following = add_render(), add_render()
    prepare(cpu, claimed(cpu), segments=5)
    claims = []
    for _ in range(2):
        claims.append(claimed(gpu))
        assert not claims[-1].opened
        assert cpu.claim() is None
    claims.append(claimed(gpu))  # now three run and two wait
    assert claims[-1].opened == {WorkQueue.CPU: 1}
    gpu.failed(claims[0], TransientError("rests, and neither waits nor runs"))
    assert cpu.claim() is None
    claims.append(claimed(gpu))  # three run and one waits
    claim = claimed(cpu)
    assert (claim.kind, claim.render_id) == (WorkKind.PREPARE, following.id)
    assert not claimed(gpu).opened  # there is no further render


def test_workers_claim_the_work_of_their_queues_alone(
    make_ledger: MakeLedger, add_render: AddRender, prepare: Prepare
) -> None:
    cpu, gpu = (make_ledger(queue.value, queues=[queue]) for queue in WorkQueue)
    add_render()
    assert gpu.claim() is None
    prepare(cpu, claimed(cpu), segments=1)
    assert cpu.claim() is None
    gpu.segment_done(claimed(gpu), storage_key="only")
    assert gpu.claim() is None
    assert claimed(cpu).kind is WorkKind.FINISH


def test_a_claim_knows_the_request_that_asked_for_its_render(
    database: Database, make_ledger: MakeLedger, add_render: AddRender, prepare: Prepare
) -> None:
    render = add_render()
    with database.write() as session:
        session.get_one(Render, render.id).request_id = "a request"
    ledger = make_ledger()
    for kind in (WorkKind.PREPARE, WorkKind.UPSCALE, WorkKind.FINISH):
        claim = claimed(ledger)
        assert (claim.kind, claim.request_id) == (kind, "a request")
        if kind is WorkKind.PREPARE:
            prepare(ledger, claim, segments=1)
        elif kind is WorkKind.UPSCALE:
            ledger.segment_done(claim, storage_key="only")


@pytest.mark.parametrize("behind", [timedelta(hours=2), timedelta(hours=-2)])
def test_times_of_rows_are_the_databases_whatever_the_clocks_of_the_machines(
    database: Database,
    make_ledger: MakeLedger,
    add_render: AddRender,
    prepare: Prepare,
    facts: VideoProperties,
    monkeypatch: pytest.MonkeyPatch,
    behind: timedelta,
) -> None:
    before = datetime.now(UTC) - timedelta(minutes=1)
    monkeypatch.setattr(clock, "_source", lambda: datetime.now(UTC) + behind)
    render = add_render()
    monkeypatch.setattr(clock, "_source", lambda: datetime.now(UTC) - behind)
    ledger = make_ledger()
    prepare(ledger, claimed(ledger), segments=1)
    ledger.segment_done(claimed(ledger), storage_key="key")
    finish(ledger, claimed(ledger), facts)

    with database.read() as session:
        row = session.get_one(Render, render.id)
        (segment,) = session.query(Segment).filter_by(render_id=render.id)
    assert before < row.created_at <= segment.created_at <= row.completed_at == row.ended_at
    assert row.ended_at < datetime.now(UTC) + timedelta(minutes=1)
