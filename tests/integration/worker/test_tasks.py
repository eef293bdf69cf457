"""What becomes of a unit of work, however its step ends."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from app.core.database import Database
from app.core.errors import ConfigurationError, LeaseLost, PermanentError, TransientError
from app.core.repositories.work import Claim
from app.core.services.work import WorkLedger
from app.core.statuses import RenderStatus, SegmentStatus
from app.core.tables import Render, Segment
from worker.heartbeat import Heartbeat
from worker.tasks import WorkTask

Step = Callable[[Claim, Heartbeat, Callable[[], bool]], int]


class FakeSteps:
    """Every step does the same given thing."""

    def __init__(self, step: Step) -> None:
        self.prepare = self.upscale = self.finish = step


@pytest.fixture
def draining() -> threading.Event:
    return threading.Event()


@pytest.fixture
def run(make_ledger: Callable[..., WorkLedger], draining: threading.Event) -> Callable[..., list[Any]]:
    """Run one task whose step is given; returns what was called in its course."""

    def run(step: Step, **ledger: Any) -> list[Any]:
        calls: list[Any] = []

        def wake(units: int) -> bool:
            calls.append(("wake", units))
            return True

        task = WorkTask(
            ledger=make_ledger(**ledger),
            steps=FakeSteps(step),  # type: ignore[arg-type]
            wake=wake,
            draining=draining,
            stop=lambda: calls.append("stop"),
        )
        task()
        return calls

    return run


@pytest.fixture
def segment(
    make_ledger: Callable[..., WorkLedger],
    add_render: Callable[[], Render],
    prepare: Callable[..., int],
    database: Database,
) -> Callable[[], Segment]:
    """The row, read afresh, of the one segment of a render in the works."""
    render = add_render()
    ledger = make_ledger()
    prepare(ledger, ledger.claim(), segments=1)

    def read() -> Segment:
        with database.read() as session:
            (row,) = session.get_one(Render, render.id).segments
            assert row.render is not None
            return row

    return read


def fail_with(error: Exception) -> Step:
    def step(claim: Claim, heartbeat: Heartbeat, cancelled: Callable[[], bool]) -> int:
        raise error

    return step


def test_what_a_step_made_ready_is_announced(
    run: Callable[..., list[Any]], segment: Callable[[], Segment]
) -> None:
    assert run(lambda claim, heartbeat, cancelled: 7) == [("wake", 7)]


def test_without_work_nothing_happens(run: Callable[..., list[Any]]) -> None:
    assert run(fail_with(AssertionError("there was nothing to do"))) == []


@pytest.mark.parametrize(
    "error", [TransientError("away"), RuntimeError("a defect"), MemoryError(), OSError("disk full")]
)
def test_a_failed_attempt_is_counted_and_tried_again(
    run: Callable[..., list[Any]], segment: Callable[[], Segment], error: Exception
) -> None:
    assert run(fail_with(error)) == []
    assert (segment().status, segment().failures) == (SegmentStatus.WAITING, 1)


def test_a_permanent_error_is_the_renders_error(
    run: Callable[..., list[Any]], segment: Callable[[], Segment]
) -> None:
    run(fail_with(PermanentError("The video is damaged.")))
    assert segment().render.status is RenderStatus.FAILED
    assert segment().render.error == "The video is damaged."


def test_a_worker_that_is_set_up_wrong_spends_no_attempt_and_stops(
    run: Callable[..., list[Any]], segment: Callable[[], Segment]
) -> None:
    assert run(fail_with(ConfigurationError("no libx264"))) == ["stop", ("wake", 1)]
    assert (segment().status, segment().failures) == (SegmentStatus.WAITING, 0)


def test_a_draining_worker_gives_its_work_back_uncharged(
    run: Callable[..., list[Any]], segment: Callable[[], Segment], draining: threading.Event
) -> None:
    def step(claim: Claim, heartbeat: Heartbeat, cancelled: Callable[[], bool]) -> int:
        assert not cancelled()
        draining.set()
        assert cancelled()
        raise LeaseLost("called off")

    assert run(step) == [("wake", 1)]
    assert (segment().status, segment().failures) == (SegmentStatus.WAITING, 0)
    assert run(fail_with(AssertionError("a draining worker claims nothing"))) == [("wake", 1)]


def test_a_worker_that_lost_its_lease_is_told_and_reports_nothing(
    run: Callable[..., list[Any]], segment: Callable[[], Segment], make_ledger: Callable[..., WorkLedger]
) -> None:
    def step(claim: Claim, heartbeat: Heartbeat, cancelled: Callable[[], bool]) -> int:
        # Somebody else takes the segment over, as after a pause longer than the lease.
        other = make_ledger("other")
        other.hand_back(claim)
        assert other.claim() is not None
        deadline = time.monotonic() + 10
        while not cancelled():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        raise RuntimeError("the pipeline was called off")

    assert run(step, lease_seconds=0.6) == []
    row = segment()
    assert (row.status, row.worker, row.failures) == (SegmentStatus.RUNNING, "other", 0)


def test_the_heartbeat_keeps_a_long_step_alive_and_reports_its_frames(
    run: Callable[..., list[Any]], segment: Callable[[], Segment], make_ledger: Callable[..., WorkLedger]
) -> None:
    seen: list[int] = []

    def step(claim: Claim, heartbeat: Heartbeat, cancelled: Callable[[], bool]) -> int:
        heartbeat.frames_done = 4
        for _ in range(10):
            time.sleep(0.1)
            assert make_ledger("other").give_back_expired() == 0
            seen.append(segment().frames_done)
        return 0

    run(step, lease_seconds=0.5)
    assert seen[-1] == 4
