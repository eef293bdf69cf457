"""The pauses between attempts."""

from itertools import islice

import pytest

from app.platform.retry_policies import READ_RETRY, WORK_FAILED, RetryPolicy, preview_poll


def test_pauses_grow_by_the_factor_and_stay_at_the_longest():
    assert list(islice(RetryPolicy.exponential(1.0, 10.0, factor=3.0).pauses(), 5)) == [1, 3, 9, 10, 10]
    assert [WORK_FAILED.pause(failures) for failures in (1, 2, 8, 9, 10_000)] == [2, 4, 256, 300, 300]


def test_a_first_pause_beyond_the_longest_is_the_longest():
    assert preview_poll(60.0).pause(1) == preview_poll(60.0).longest_seconds == 10


@pytest.mark.parametrize("retry", [1, 3, 50])
def test_jitter_is_a_range_of_factors(retry):
    without = READ_RETRY.steps_seconds[min(retry, len(READ_RETRY.steps_seconds)) - 1]
    pauses = [READ_RETRY.pause(retry) for _ in range(100)]
    assert 0.5 * without <= min(pauses) < max(pauses) <= 1.5 * without
