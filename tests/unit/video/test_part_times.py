"""Times of a part: what requests may say, and the timecode of its first frame."""

from fractions import Fraction

import pytest

from app.platform.errors import InvalidRequest
from app.platform.media.time_range import parse_moment
from worker.video.metadata import later_timecode, read_timecode


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        (" 83.5 ", Fraction("83.5")),
        ("1e2", 100),
        ("0.20833333333333334", Fraction("0.208333")),
        ("01:02:03.004", Fraction("3723.004")),
        ("1:30", 90),
        ("100:00:00", 360_000),
    ],
)
def test_moments(text, seconds):
    assert parse_moment(text, name="start") == seconds


@pytest.mark.parametrize(
    "text", ["", "-1", "1,5", "nan", "1:60", "0:0:0:0", "1e99", "9" * 80, "00:00:00;00", "1/2"]
)
def test_what_is_no_moment(text):
    with pytest.raises(InvalidRequest, match=r"^`end` must be seconds, such as 83\.5"):
        parse_moment(text, name="end")


@pytest.mark.parametrize(
    ("code", "frames", "rate", "later"),
    [
        ("01:00:00:00", 26, 25, "01:00:01:01"),
        ("23:59:59:24", 1, 25, "00:00:00:00"),
        ("00:00:59;29", 1, 30, "00:01:00;02"),
        ("00:09:59;29", 1, 30, "00:10:00;00"),
        ("00:00:00;00", 17_982, 30, "00:10:00;00"),
        ("00:00:59;59", 1, 60, "00:01:00;04"),
        ("10:00:00:07", 0, 24, "10:00:00:07"),
    ],
)
def test_timecode_of_a_later_frame(code, frames, rate, later):
    assert later_timecode(read_timecode(code), frames, rate=rate) == later
