"""Segments that are claimable while the video of their render is still being read."""

from collections.abc import Callable, Sequence

import pytest
from sqlalchemy import select, update

from app.platform.database import Database, database_now
from app.platform.errors import LeaseLost, PermanentError
from app.platform.work_kinds import WorkKind
from app.renders import queries as render_queries
from app.renders.queries import FramesDone
from app.renders.statuses import RenderStatus, SegmentStatus
from app.renders.tables import Render, Segment
from app.renders.transitions import fail_render
from app.work.ledger import WorkLedger
from app.work.planning import PlannedSegment
from app.work.queries import Claim, Job
from app.work.queue_metrics import work_metrics
from tests.integration.conftest import FACTS

MakeLedger = Callable[..., WorkLedger]
AddRender = Callable[[], Render]


def planned(count: int, *, name: str = "part") -> list[PlannedSegment]:
    return [PlannedSegment(frames=10, plan=f"{name} {number}") for number in range(count)]


def release(ledger: WorkLedger, claim: Claim, segments: Sequence[PlannedSegment], first: int = 0) -> int:
    rest = 100 - 10 * (first + len(segments))
    ready = ledger.release_segments(
        claim, plan="so far", segments=segments, first=first, unplanned_frames=rest
    )
    return ready.total()


def end_reading(ledger: WorkLedger, claim: Claim, segments: Sequence[PlannedSegment]) -> dict[object, int]:
    return ledger.prepared(
        claim, plan="all", source=FACTS, output=FACTS, cost=1.0, warnings=[], segments=segments
    )


def claimed(ledger: WorkLedger) -> Job:
    job = ledger.claim()
    assert job is not None
    return job


def state(database: Database, render_id: str) -> tuple[RenderStatus, list[tuple[str, SegmentStatus]]]:
    with database.read() as session:
        render = session.get_one(Render, render_id)
        return render.status, [(segment.plan, segment.status) for segment in render.segments]


def frames(database: Database, render_id: str) -> FramesDone:
    with database.read() as session:
        return render_queries.frames_done(session, render_ids=[render_id])[render_id]


def let_leases_expire(database: Database) -> None:
    with database.write() as session:
        held = update(Render).where(Render.lease_expires_at.is_not(None))
        session.execute(held.values(lease_expires_at=database_now(plus_seconds=-1)))


def test_segments_are_upscaled_while_the_rest_is_read_and_the_finish_waits_for_it(
    database: Database, make_ledger: MakeLedger, add_render: AddRender
) -> None:
    reader, other = make_ledger("reader"), make_ledger("other")
    render, job = add_render(), claimed(reader)
    assert release(reader, job, planned(2)) == 2
    assert state(database, render.id)[0] is RenderStatus.PROCESSING
    assert frames(database, render.id) == FramesDone(done=0, total=100)
    for number in range(2):
        segment = claimed(other)
        assert (segment.kind, segment.plan) == (WorkKind.UPSCALE, "so far")
        assert other.segment_done(segment, storage_key=f"key {number}") == {}
    assert other.claim() is None, "neither the finish nor the reading is anyone else's"
    assert frames(database, render.id) == FramesDone(done=20, total=100)
    assert release(reader, job, planned(4)[2:], first=2) == 2
    assert end_reading(reader, job, planned(5)) == {WorkKind.UPSCALE.queue: 1}
    assert end_reading(reader, job, planned(5)) == {WorkKind.UPSCALE.queue: 3}, (
        "a repeated report wakes for all"
    )
    assert frames(database, render.id) == FramesDone(done=20, total=50)
    ready = [other.segment_done(claimed(other), storage_key="key") for _ in range(3)]
    assert ready == [{}, {}, {WorkKind.FINISH.queue: 1}]
    finish = claimed(other)
    assert (finish.kind, len(finish.segments)) == (WorkKind.FINISH, 5)


def test_a_reading_that_dies_is_begun_again_and_what_it_released_stays(
    database: Database, make_ledger: MakeLedger, add_render: AddRender
) -> None:
    """Even for a user who may have one render at work: this one."""
    reader, other = (make_ledger(name, max_running_renders=1) for name in ("reader", "other"))
    render, lost = add_render(), claimed(reader)
    release(reader, lost, planned(3))
    other.segment_done(claimed(other), storage_key="key 0")
    running = claimed(other)
    let_leases_expire(database)
    assert [claim.kind for claim in other.give_back_expired()] == [WorkKind.PREPARE]
    with database.read() as session:
        assert sum(queue.waiting for queue in work_metrics(session).queues.values()) == 2
    with pytest.raises(LeaseLost):
        release(reader, lost, planned(4)[3:], first=3)
    with pytest.raises(LeaseLost):
        end_reading(reader, lost, planned(4))
    other.segment_done(claimed(other), storage_key="key 2")
    again = claimed(other)
    assert (again.kind, again.render_id, again.plan) == (WorkKind.PREPARE, render.id, "so far")
    assert release(other, again, planned(3)) == 0
    assert end_reading(other, again, planned(4)) == {WorkKind.UPSCALE.queue: 1}
    assert other.segment_done(running, storage_key="key 1") == {}
    assert [status for _, status in state(database, render.id)[1]] == [
        *[SegmentStatus.DONE] * 3,
        SegmentStatus.WAITING,
    ]


def test_what_is_planned_otherwise_is_made_again(
    database: Database, make_ledger: MakeLedger, add_render: AddRender
) -> None:
    ledger = make_ledger()
    render, job = add_render(), claimed(ledger)
    release(ledger, job, planned(4))
    done, running = claimed(ledger), claimed(ledger)
    ledger.segment_done(done, storage_key="key 0")
    other = planned(1) + planned(3, name="otherwise")[1:2]
    assert end_reading(ledger, job, other) == {WorkKind.UPSCALE.queue: 1}
    assert state(database, render.id)[1] == [
        ("part 0", SegmentStatus.DONE),
        ("otherwise 1", SegmentStatus.WAITING),
    ]
    with pytest.raises(LeaseLost):
        ledger.segment_done(running, storage_key="key 1")
    assert claimed(ledger).attempt == running.attempt + 1, "the key of its file has the attempt"


@pytest.mark.parametrize("ends_by", ["cancel", "damage"])
def test_a_render_that_ends_while_it_is_read_releases_nothing_more(
    database: Database, make_ledger: MakeLedger, add_render: AddRender, ends_by: str
) -> None:
    ledger = make_ledger()
    render, job = add_render(), claimed(ledger)
    release(ledger, job, planned(2))
    running = claimed(ledger)
    if ends_by == "cancel":
        with database.write() as session:
            fail_render(session, render_id=render.id, error="Canceled")
    else:
        ledger.failed(job, PermanentError("It is damaged."))
    assert not ledger.renew(job, frames_done=0)
    for late in (lambda: release(ledger, job, planned(3)[2:], first=2), lambda: end_reading(ledger, job, [])):
        with pytest.raises(LeaseLost):
            late()
    with pytest.raises(LeaseLost):
        ledger.segment_done(running, storage_key="key")
    assert state(database, render.id) == (
        RenderStatus.FAILED,
        [("part 0", SegmentStatus.FAILED), ("part 1", SegmentStatus.FAILED)],
    )
    assert ledger.claim() is None
    assert frames(database, render.id).total == 100


def test_a_reading_that_fails_rests_while_its_segments_go_on(
    database: Database, make_ledger: MakeLedger, add_render: AddRender
) -> None:
    ledger = make_ledger()
    render, job = add_render(), claimed(ledger)
    release(ledger, job, planned(1))
    ledger.failed(job, ValueError("once"))
    assert claimed(ledger).kind is WorkKind.UPSCALE
    assert ledger.claim() is None
    with database.write() as session:
        session.execute(update(Render).values(retry_at=None))
    again = claimed(ledger)
    assert (again.kind, again.attempt) == (WorkKind.PREPARE, job.attempt + 1)
    assert state(database, render.id)[0] is RenderStatus.PROCESSING
    with database.read() as session:
        assert session.scalars(select(Segment.attempt)).all() == [1]
