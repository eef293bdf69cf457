"""How long a worker that is asked to end goes on."""

import math
import time

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


def test_what_is_left_of_a_segment_is_told_from_its_speed_so_far() -> None:
    eta = SegmentEta(frames=101)
    assert eta.seconds_left == 0, "nobody knows yet"
    eta.progress(1)
    assert eta.seconds_left == 0
    time.sleep(0.05)
    eta.progress(2)
    assert eta.seconds_left >= 99 * 0.05
    eta.progress(101)
    assert eta.seconds_left == 0
