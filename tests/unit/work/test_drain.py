"""How long a worker that is asked to end goes on."""

import math
import time

import pytest

from app.work.drain import Drain
from worker.segment_eta import SegmentEta


def test_asked_once_it_has_its_grace_and_asked_twice_none() -> None:
    drain = Drain(grace_seconds=60)
    assert not drain.requested
    assert drain.seconds_left == math.inf
    drain.request()
    assert drain.requested
    assert not drain.is_over
    assert 50 < drain.seconds_left <= 60
    drain.request()
    assert drain.is_over
    at_once = Drain(grace_seconds=60)
    at_once.request(at_once=True)
    assert at_once.is_over


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_what_is_left_of_a_segment_is_told_from_its_speed_so_far(clock: list[float]) -> None:
    eta = SegmentEta(frames=101, began_at=lambda: 100.0)
    assert eta.seconds_left == 0, "nothing says that it will be late"
    clock[0] += 20
    assert eta.seconds_left == 101 * 20, "not even its first frame is done"
    eta.progress(1)
    assert eta.seconds_left == 100 * 20, "an expensive engine is known from its first frame"
    clock[0] += 0.5
    eta.progress(1)
    clock[0] += 9.5
    eta.progress(2)
    assert eta.seconds_left == pytest.approx(99 * 10)
    eta.progress(101)
    assert eta.seconds_left == 0


def test_the_frames_of_a_batch_are_one_step(clock: list[float]) -> None:
    eta = SegmentEta(frames=40, began_at=lambda: 100.0)
    for batch in range(1, 4):
        clock[0] += 12
        for frame in range(4 * batch - 3, 4 * batch + 1):
            clock[0] += 0.001
            eta.progress(frame)
        assert eta.seconds_left == pytest.approx((40 - 4 * batch) * 3, rel=0.1)
