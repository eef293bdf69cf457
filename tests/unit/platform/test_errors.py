"""What an error came from, whatever the chain of its causes looks like."""

import errno

import pytest

from app.platform.errors import FfmpegKilled, causes
from app.work.outage_retry import is_outage


def test_causes_come_nearest_first() -> None:
    last, middle, first = OSError("last"), ValueError("middle"), KeyError("first")
    first.__cause__, first.__context__, middle.__context__ = middle, RuntimeError("beside"), last
    assert [str(cause.args[0]) for cause in causes(first)] == ["first", "middle", "last", "beside"]


def test_an_error_that_is_its_own_cause_has_no_other() -> None:
    error = FfmpegKilled("out of memory")
    error.__cause__ = error.__context__ = error
    assert list(causes(error)) == [error]
    assert not is_outage(error)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_circle_of_causes_is_walked_once(number: int) -> None:
    first, second = FfmpegKilled("out of memory"), OSError(number, "broken")
    first.__cause__, second.__context__ = second, first
    assert list(causes(first)) == [first, second]
    assert is_outage(first) == (number == errno.ENOSPC)


def test_what_an_error_carries_beside_its_causes_is_followed_too() -> None:
    inner, outer = ValueError("inner"), KeyError("outer")
    assert list(causes(outer, also=lambda error: [None, "no error", inner])) == [outer, inner]
