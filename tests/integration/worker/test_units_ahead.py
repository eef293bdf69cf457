"""A worker claims its next segment before the present one is done: one at most, and nothing is lost or done twice."""

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from app.platform.database import Database
from app.platform.errors import Canceled, PipelineStalled
from app.platform.progress import Progress, current_progress, reporting_to
from app.platform.work_kinds import WorkKind
from app.renders.statuses import SegmentStatus
from app.renders.tables import Render, Segment
from app.renders.transitions import fail_render
from app.work.drain import Drain
from app.work.heartbeat import Heartbeat
from app.work.ledger import WorkLedger
from app.work.loop import WorkLoop, WorkUnit
from app.work.outage_retry import OutageRetry
from app.work.queries import Job, ReadyUnits
from tests.integration.worker.conftest import Workplace, lines, wait_ready
from tests.integration.worker.faults import SECONDS, check_whole, running, segments, wake
from tests.servers.broker import BrokerServer
from tests.servers.process import wait_until
from worker.device_turns import DeviceTurns

MakeLedger = Callable[..., WorkLedger]


def make_loop(ledger: WorkLedger, step: WorkUnit, **options: Any) -> WorkLoop:
    return WorkLoop(
        ledger=ledger,
        units=dict.fromkeys(WorkKind, step),
        drain=Drain(grace_seconds=60),
        outage_retry=OutageRetry(seconds=0),
        wake=lambda _ready: None,
        stop=lambda: None,
        most_in_hand=3,
        **options,
    )


def held(database: Database) -> int:
    with database.read() as session:
        return len(session.scalars(select(Segment.id).where(Segment.status == SegmentStatus.RUNNING)).all())


def test_one_segment_is_claimed_ahead_and_not_before_the_present_one_ends_soon(
    database: Database, make_ledger: MakeLedger, add_render: Callable[[], Render], prepare: Callable[..., Any]
) -> None:
    ledger = make_ledger()
    add_render()
    prepare(ledger, ledger.claim(), segments=4)
    seen: list[int] = []
    ended = [threading.Event() for _ in range(4)]

    def step(job: Job, heartbeat: Heartbeat, cancelled: Callable[[], bool]) -> ReadyUnits:
        if job.kind is not WorkKind.UPSCALE:
            raise Canceled
        position = job.segments[0].position
        if position == 0:
            assert not ended[1].wait(0.3)
            seen.append(held(database))
            heartbeat.end_soon()
            wait_until(lambda: held(database) == 2, what="the next is claimed")
            assert not ended[1].wait(0.3)
            seen.append(held(database))
        else:
            # As the device's turns have it.
            assert ended[position - 1].wait(20)
        ready = ledger.segment_done(job, storage_key="done")
        ended[position].set()
        return ready

    make_loop(ledger, step)()
    assert seen == [1, 2]
    with database.read() as session:
        rows = session.scalars(select(Segment)).all()
        assert {(row.status, row.attempt) for row in rows} == {(SegmentStatus.DONE, 1)}


def test_one_render_is_prepared_and_one_finished_beside_the_segments(
    database: Database, make_ledger: MakeLedger, add_render: Callable[[], Render], prepare: Callable[..., Any]
) -> None:
    """Two wait for each. The device does not: a segment that becomes ready meanwhile is begun within seconds."""
    ledger = make_ledger()
    for _ in range(2):
        add_render()
        prepare(ledger, ledger.claim([WorkKind.PREPARE]), segments=1)
        segment = ledger.claim([WorkKind.UPSCALE])
        assert segment is not None
        ledger.segment_done(segment, storage_key="done")
    for _ in range(3):
        add_render()
    prepare(ledger, ledger.claim([WorkKind.PREPARE]), segments=1)
    begun, may_end = Counter[WorkKind](), threading.Event()

    def step(job: Job, heartbeat: Heartbeat, cancelled: Callable[[], bool]) -> ReadyUnits:
        begun[job.kind] += 1
        assert may_end.wait(20)
        raise Canceled

    thread = threading.Thread(target=make_loop(ledger, step))
    thread.start()
    wait_until(lambda: begun.total() == 3, what="one unit of each kind is begun")
    assert not may_end.wait(0.3)
    assert begun == dict.fromkeys(WorkKind, 1)
    may_end.set()
    thread.join(20)


def test_a_render_that_comes_while_a_long_segment_computes_is_prepared_meanwhile(
    database: Database, make_ledger: MakeLedger, add_render: Callable[[], Render], prepare: Callable[..., Any]
) -> None:
    ledger = make_ledger()
    add_render()
    prepare(ledger, ledger.claim(), segments=1)
    begun, prepared = threading.Event(), threading.Event()

    def step(job: Job, heartbeat: Heartbeat, cancelled: Callable[[], bool]) -> ReadyUnits:
        if job.kind is WorkKind.UPSCALE:
            begun.set()
            assert prepared.wait(20)
        else:
            prepared.set()
        raise Canceled

    thread = threading.Thread(target=make_loop(ledger, step))
    thread.start()
    assert begun.wait(20) and not prepared.wait(0.3)
    add_render()
    assert prepared.wait(20)
    thread.join(20)


def test_of_two_in_hand_the_one_that_hangs_is_charged(
    database: Database, make_ledger: MakeLedger, add_render: Callable[[], Render], prepare: Callable[..., Any]
) -> None:
    """And the loop's progress stands still although the other one moves."""
    ledger, work = make_ledger(), Progress()
    add_render()
    prepare(ledger, ledger.claim(), segments=2)
    ends = threading.Event()

    def step(job: Job, heartbeat: Heartbeat, cancelled: Callable[[], bool]) -> ReadyUnits:
        heartbeat.end_soon()
        while not ends.wait(0.02):
            if job.segments[0].position == 0:
                current_progress().beat()
        raise PipelineStalled("The work came to a halt.")

    loop = make_loop(ledger, step)

    def run() -> None:
        with reporting_to(work):
            loop()

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: held(database) == 2, what="two are in hand")
    by_position = {unit.job.segments[0].position: unit for unit in loop._in_hand.units}
    wait_until(lambda: by_position[1].stillness.seconds > 0.5, what="one stands still")
    beats = work.beats
    wait_until(lambda: by_position[1].stillness.seconds > 1, what="it goes on standing still")
    assert work.beats == beats and by_position[0].stillness.seconds < 0.5
    loop.give_back(True)
    loop._drain.request(at_once=True)
    ends.set()
    thread.join(20)
    with database.read() as session:
        rows = session.scalars(select(Segment).order_by(Segment.position)).all()
        assert [(row.status, row.failures) for row in rows] == [
            (SegmentStatus.WAITING, 0),
            (SegmentStatus.WAITING, 1),
        ]


def test_segments_compute_in_the_order_of_their_claims_and_the_time_of_each_is_counted_once() -> None:
    turns = DeviceTurns()
    order = []
    with turns.queued() as first, turns.queued() as second:
        first.wait(lambda: None)
        assert second.is_ahead and not first.is_ahead

        def compute() -> None:
            second.wait(lambda: None)
            order.append("second")

        thread = threading.Thread(target=compute)
        thread.start()
        thread.join(0.2)
        order.append("first")
        first.end()
        thread.join(20)
        assert order == ["first", "second"] and not second.is_ahead
        assert second.ready_at == first.ended_at

        def give_up() -> None:
            raise Canceled

        with turns.queued() as third, pytest.raises(Canceled):
            third.wait(give_up)
    assert turns.first is None


@pytest.mark.parametrize("ending", ["drain", "cancel", "kill"])
def test_a_worker_with_one_ahead_ends(
    workplace: Callable[..., Workplace], broker_server: BrokerServer, ending: str
) -> None:
    place = workplace(
        broker_url=broker_server.url,
        broker_password=broker_server.password or "",
        lease_seconds="2" if ending == "kill" else "600",
        stand_in_seconds_per_frame="0.3",
    )
    worker = place.start_worker(drain_seconds="600")
    wait_ready(worker)
    render_id = place.submit()
    wake(place)
    worker.wait_until(
        lambda: len(running(place, render_id, frames=0)) == 2, seconds=SECONDS, what="one is claimed ahead"
    )
    if ending == "cancel":
        with place.database.write() as session:
            assert fail_render(session, render_id=render_id, error="It was canceled.")
        worker.wait_until(lambda: len(lines(worker, "work_abandoned")) == 2, seconds=SECONDS, what="both end")
        assert {part.status for part in segments(place, render_id)} == {SegmentStatus.FAILED}
        other = place.submit()
        wake(place)
        place.wait_completed(other)
        check_whole(place, other)
        return
    worker.send_signal(signal.SIGTERM if ending == "drain" else signal.SIGKILL)
    wait_until(lambda: worker.status is not None, seconds=SECONDS, what="it ends")
    parts = segments(place, render_id)
    if ending == "drain":
        assert worker.status == os.EX_OK
        assert [part.status for part in parts] == [SegmentStatus.DONE, SegmentStatus.WAITING]
    wait_ready(place.start_worker(stand_in_seconds_per_frame="0"))
    wake(place)
    place.wait_completed(render_id)
    counts = [(part.attempt, part.failures, part.expiries) for part in segments(place, render_id)]
    assert counts == ([(1, 0, 0), (2, 0, 0)] if ending == "drain" else [(2, 0, 1), (2, 0, 1)])
    check_whole(place, render_id)
