"""What becomes of a unit of work, however its step ends."""

import errno
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from fractions import Fraction
from typing import Any

import pytest
import structlog
from prometheus_client import REGISTRY

from app.platform.database import Database
from app.platform.errors import (
    Canceled,
    ConfigurationError,
    FfmpegDiskFull,
    FfmpegKilled,
    KeyNotFound,
    PermanentError,
    StorageError,
    TransientError,
    Unavailable,
)
from app.platform.media.info import VideoProperties
from app.platform.work_kinds import WorkKind, WorkQueue
from app.renders.statuses import RenderStatus, SegmentStatus
from app.renders.tables import Render, Segment
from app.work.drain import Drain
from app.work.heartbeat import Heartbeat
from app.work.ledger import WorkLedger
from app.work.loop import WorkLoop, WorkUnit
from app.work.outage_retry import OutageRetry
from app.work.queries import Claim, ReadyUnits
from tests.servers.process import wait_until
from worker.metrics import UnitMetrics

FACTS = VideoProperties(width=64, height=48, frame_rate=Fraction(25), duration_seconds=Fraction(2), frames=50)


@pytest.fixture
def drain() -> Drain:
    return Drain(grace_seconds=60)


@pytest.fixture
def run(make_ledger: Callable[..., WorkLedger], drain: Drain) -> Callable[..., list[Any]]:
    """Run one task whose step is given; returns what was called in its course."""

    def run(step: WorkUnit, **ledger: Any) -> list[Any]:
        calls: list[Any] = []

        def wake(ready: ReadyUnits) -> None:
            calls.extend((queue.value, units) for queue, units in sorted(ready.items()) if units)

        def stop() -> None:
            calls.append("stop")
            drain.request(at_once=True)

        task = WorkLoop(
            ledger=make_ledger(**ledger),
            units=dict.fromkeys(WorkKind, step),
            wake=wake,
            drain=drain,
            outage_retry=OutageRetry(seconds=0),
            stop=stop,
            observer=UnitMetrics(),
        )
        task()
        return calls

    return run


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def fail_with(error: Exception) -> WorkUnit:
    def step(claim: Claim, heartbeat: Heartbeat, cancelled: Callable[[], bool]) -> ReadyUnits:
        raise error

    return step


def test_what_a_step_made_ready_is_announced(
    run: Callable[..., list[Any]], segment: Callable[[], Segment]
) -> None:
    assert run(lambda claim, heartbeat, cancelled: Counter({WorkQueue.GPU: 7})) == [("gpu", 7)]


def test_what_a_claim_made_ready_is_announced_before_its_step(
    run: Callable[..., list[Any]], segment: Callable[[], Segment], add_render: Callable[[], Render]
) -> None:
    add_render()  # with the one segment in hand, it may be prepared
    assert run(
        lambda claim, heartbeat, cancelled: Counter({WorkQueue.GPU: 7}) if claim.segment_id else Counter()
    ) == [("cpu", 1), ("gpu", 7)]


def test_one_wake_up_is_followed_by_all_the_work_there_is(
    run: Callable[..., list[Any]],
    make_ledger: Callable[..., WorkLedger],
    add_render: Callable[[], Render],
    prepare: Callable[..., Any],
    database: Database,
) -> None:
    """The most urgent first."""
    renders = [add_render(), add_render()]
    ledger = make_ledger()
    done: list[tuple[WorkKind, str]] = []

    def step(claim: Claim, heartbeat: Heartbeat, cancelled: Callable[[], bool]) -> ReadyUnits:
        done.append((claim.kind, claim.render_id))
        if claim.kind is WorkKind.PREPARE:
            return prepare(ledger, claim, segments=2)
        if claim.kind is WorkKind.UPSCALE:
            return ledger.segment_done(claim, storage_key="a part")
        ledger.finished(
            claim, output_key="video", thumbnail_key="picture", output=FACTS, cost=1.0, warnings=[]
        )
        return Counter()

    run(step)
    kinds = [WorkKind.PREPARE, WorkKind.UPSCALE, WorkKind.UPSCALE, WorkKind.FINISH]
    assert done == [(kind, render.id) for render in renders for kind in kinds]


@pytest.mark.parametrize("broken", ["claim", "failed", "hand_back"])
def test_a_database_that_goes_away_ends_the_task_and_nothing_more(
    run: Callable[..., list[Any]],
    segment: Callable[[], Segment],
    drain: Drain,
    monkeypatch: pytest.MonkeyPatch,
    broken: str,
) -> None:
    attempts = []

    def unavailable(*_: object) -> None:
        attempts.append(broken)
        raise Unavailable("The database cannot be reached just now.")

    def step(claim: Claim, heartbeat: Heartbeat, cancelled: Callable[[], bool]) -> ReadyUnits:
        if broken == "hand_back":
            drain.request()
        raise TransientError("away")

    monkeypatch.setattr(WorkLedger, broken, unavailable)
    assert run(step) == ([("cpu", 1), ("gpu", 1)] if broken == "hand_back" else [])
    assert attempts == [broken]


def test_without_work_nothing_happens(run: Callable[..., list[Any]]) -> None:
    assert run(fail_with(AssertionError("there was nothing to do"))) == []


@pytest.mark.parametrize(
    "error",
    [
        TransientError("slow"),
        RuntimeError("a defect"),
        MemoryError(),
        FfmpegKilled("out of memory"),
        KeyNotFound("?"),
    ],
)
def test_a_failed_attempt_is_counted_and_tried_again(
    run: Callable[..., list[Any]], segment: Callable[[], Segment], error: Exception
) -> None:
    assert run(fail_with(error)) == []
    assert (segment().status, segment().failures) == (SegmentStatus.WAITING, 1)


@pytest.mark.parametrize(
    "error",
    [
        StorageError("away"),
        Unavailable("away"),
        FfmpegDiskFull("no room"),
        OSError(errno.ENOSPC, "no room"),
    ],
)
def test_an_outage_is_not_held_against_the_work(
    run: Callable[..., list[Any]],
    segment: Callable[[], Segment],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    rests: list[float] = []
    monkeypatch.setattr(WorkLoop, "_rest", lambda _task, seconds: rests.append(seconds))
    assert run(fail_with(error)) == []
    row = segment()
    assert (row.status, row.failures, row.outages) == (SegmentStatus.WAITING, 0, 1)
    assert row.retry_at is not None
    assert rests == [2.0]


@pytest.mark.parametrize("is_well", [False, True])
def test_a_worker_rests_after_an_outage_only_while_its_machine_lacks_something(
    make_ledger: Callable[..., WorkLedger],
    segment: Callable[[], Segment],
    drain: Drain,
    monkeypatch: pytest.MonkeyPatch,
    is_well: bool,
) -> None:
    rests: list[float] = []
    monkeypatch.setattr(WorkLoop, "_rest", lambda _task, seconds: rests.append(seconds))
    WorkLoop(
        ledger=make_ledger(),
        units=dict.fromkeys(WorkKind, fail_with(StorageError("away"))),
        wake=lambda _ready: None,
        drain=drain,
        outage_retry=OutageRetry(seconds=0),
        stop=lambda: None,
        is_well=lambda: is_well,
    )()
    assert segment().outages == 1
    assert rests == ([] if is_well else [2.0])


def test_a_permanent_error_is_the_renders_error(
    run: Callable[..., list[Any]], segment: Callable[[], Segment]
) -> None:
    run(fail_with(PermanentError("The video is damaged.")))
    assert segment().render.status is RenderStatus.FAILED
    assert segment().render.error == "The video is damaged."


def test_a_worker_that_is_set_up_wrong_spends_no_attempt_and_stops(
    run: Callable[..., list[Any]], segment: Callable[[], Segment]
) -> None:
    assert run(fail_with(ConfigurationError("no libx264"))) == ["stop", ("cpu", 1), ("gpu", 1)]
    assert (segment().status, segment().failures) == (SegmentStatus.WAITING, 0)


def test_a_draining_worker_gives_its_work_back_uncharged(
    run: Callable[..., list[Any]], segment: Callable[[], Segment], drain: Drain
) -> None:
    def step(claim: Claim, heartbeat: Heartbeat, cancelled: Callable[[], bool]) -> ReadyUnits:
        drain.request()
        assert not cancelled()
        drain.request()
        assert cancelled()
        raise Canceled

    assert run(step) == [("cpu", 1), ("gpu", 1)]
    assert (segment().status, segment().failures) == (SegmentStatus.WAITING, 0)
    never = fail_with(AssertionError("a draining worker claims nothing"))
    assert run(never, queues=[WorkQueue.GPU]) == [("gpu", 1)]


def test_a_worker_that_lost_its_lease_is_told_and_reports_nothing(
    run: Callable[..., list[Any]], segment: Callable[[], Segment], make_ledger: Callable[..., WorkLedger]
) -> None:
    def step(claim: Claim, heartbeat: Heartbeat, cancelled: Callable[[], bool]) -> ReadyUnits:
        # Somebody else takes the segment over, as after a pause longer than the lease.
        other = make_ledger("other")
        other.hand_back(claim)
        assert other.claim() is not None
        deadline = time.monotonic() + 10
        while not cancelled():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        raise RuntimeError("the pipeline was called off")

    before = counted("regen_work_units_total", kind="upscale", outcome="lease_lost")
    losses = counted("regen_lease_losses_total", kind="upscale")
    assert run(step, lease_seconds=0.6) == []
    assert counted("regen_work_units_total", kind="upscale", outcome="lease_lost") == before + 1
    assert counted("regen_lease_losses_total", kind="upscale") == losses + 1
    row = segment()
    assert (row.status, row.worker, row.failures) == (SegmentStatus.RUNNING, "other", 0)


def test_the_heartbeat_keeps_a_long_step_alive_and_reports_its_frames(
    run: Callable[..., list[Any]], segment: Callable[[], Segment], make_ledger: Callable[..., WorkLedger]
) -> None:
    kept: list[int] = []

    def expiry() -> datetime:
        expires_at = segment().lease_expires_at
        assert expires_at is not None
        return expires_at

    def step(claim: Claim, heartbeat: Heartbeat, cancelled: Callable[[], bool]) -> ReadyUnits:
        heartbeat.frames_done = 4
        for beat in range(3):
            before = expiry()
            wait_until(lambda before=before: expiry() > before, what=f"heartbeat {beat} arrives")
        if not make_ledger("other").give_back_expired():
            kept.append(segment().frames_done)
        return Counter()

    run(step, lease_seconds=3.0)
    assert kept == [4]


def test_every_line_of_a_unit_tells_which_one_it_is(
    run: Callable[..., list[Any]], segment: Callable[[], Segment]
) -> None:
    claims: list[Claim] = []
    seen: list[dict[str, Any]] = []

    def step(claim: Claim, heartbeat: Heartbeat, cancelled: Callable[[], bool]) -> ReadyUnits:
        claims.append(claim)
        seen.append(structlog.contextvars.get_contextvars())
        return Counter()

    run(step)
    assert seen == [
        {
            "kind": "upscale",
            "render_id": claims[0].render_id,
            "segment_id": claims[0].segment_id,
            "attempt": 1,
        }
    ]
    assert not structlog.contextvars.get_contextvars()


def test_a_heartbeat_that_fails_is_counted_and_followed_by_others(
    run: Callable[..., list[Any]], segment: Callable[[], Segment], monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = [Unavailable("away"), RuntimeError("a defect")]
    renew = WorkLedger.renew

    def fails_twice(ledger: WorkLedger, claim: Claim, *, frames_done: int) -> bool:
        if faults:
            raise faults.pop()
        return renew(ledger, claim, frames_done=frames_done)

    def step(claim: Claim, heartbeat: Heartbeat, cancelled: Callable[[], bool]) -> ReadyUnits:
        heartbeat.frames_done = 3
        wait_until(lambda: segment().frames_done == 3, what="a heartbeat arrives")
        return Counter()

    monkeypatch.setattr(WorkLedger, "renew", fails_twice)
    before = counted("regen_heartbeat_failures_total")
    run(step, lease_seconds=0.6)
    assert counted("regen_heartbeat_failures_total") == before + 2
