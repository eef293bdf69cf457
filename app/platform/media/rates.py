"""Frame rates as exact fractions: `target_fps` as users write it, and rates as containers declare them."""

import re
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from math import floor

from app.platform.errors import InvalidRequest

MIN_FPS = 1
MAX_FPS = 120
LONGEST_NUMBER = 64
# Time bases are 32-bit numbers in MP4, and the numerator of the rate becomes one: 120 * 1,000,000 fits.
MAX_DENOMINATOR = 1_000_000
# A single-precision 119.88... is up to 4e-6 off.
FINEST_STEP = Fraction(1, 100_000)

_DECIMAL = re.compile(r"\+?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_FRACTION = re.compile(r"([0-9]{1,20})/([0-9]{1,20})")


class Retime(StrEnum):
    """Where the frames of a `target_fps` come from that lie between two of the input's."""

    NEAREST = "nearest"
    """The input's frame that is nearest in time."""
    BLEND = "blend"
    """The two around it, mixed by how near each is."""
    MOTION = "motion"
    """The two around it, each moved along the motion between them, then mixed; across a cut, the nearest."""


_NOT_A_RATE = "target_fps must be a number from 1 to 120, such as 24, 29.97 or 30000/1001."


def parse_target_fps(value: str | float | int | Decimal) -> Fraction:
    """The exact rate that a user's `target_fps` means: frames a second, 1 to 120 inclusive.

    A number, or text in decimal notation or as `numerator/denominator`. Integers and fractions are taken as they are.
    A decimal of two or more places is taken for n*1000/1001 (see `snap_ntsc`) where it is that rate, rounded or cut
    off: 23.976, 29.97, 59.94005994. Everything else keeps its value (12.5 is 25/2), to the nearest fraction with a
    denominator of at most a million. Raises InvalidRequest for everything else, NaN and infinity among it.
    """
    if isinstance(value, bool):
        raise InvalidRequest(_NOT_A_RATE)
    if isinstance(value, int):
        return _in_range(Fraction(value))
    # A float's repr is the shortest text that means it: what the user wrote.
    text = str(value).strip() if isinstance(value, str | Decimal) else repr(float(value))
    if len(text) > LONGEST_NUMBER:
        raise InvalidRequest(_NOT_A_RATE)
    if fraction := _FRACTION.fullmatch(text):
        numerator, denominator = int(fraction[1]), int(fraction[2])
        if denominator == 0:
            raise InvalidRequest(_NOT_A_RATE)
        return _in_range(Fraction(numerator, denominator))
    if not _DECIMAL.fullmatch(text):
        raise InvalidRequest(_NOT_A_RATE)
    number = Decimal(text)
    # Before it becomes a fraction: 1e400 would be one of four hundred digits.
    if not MIN_FPS <= number <= MAX_FPS:
        raise InvalidRequest(_NOT_A_RATE)
    exact = Fraction(number)
    exponent = number.normalize().as_tuple().exponent
    places = -exponent if isinstance(exponent, int) else 0
    return _in_range(snap_ntsc(exact, step=Fraction(1, 10**places)) if places >= 2 else exact)


def parse_retime(text: str) -> Retime:
    """Raises InvalidRequest for a name that is none."""
    try:
        return Retime(text)
    except ValueError:
        known = ", ".join(f'"{way}"' for way in Retime)
        raise InvalidRequest(f"`retime` must be one of {known}.") from None


def frames_at_rate(duration_seconds: Fraction, target_fps: Fraction) -> int:
    """How many frames at `target_fps` last as long: to the nearest (halves up), at least one."""
    return max(1, floor(duration_seconds * target_fps + Fraction(1, 2)))


def snap_ntsc(rate: Fraction, *, step: Fraction) -> Fraction:
    """`rate`, or the n*1000/1001 (n a whole number) that it stands for: the one that is less than `step` away.

    `step` is the worth of the last decimal place that `rate` was written with, so that both rounding (23.98) and
    cutting off (23.97) are understood; it counts for no less than 1/100000, which lets single-precision numbers in, and
    for no more than 1/100, because at a tenth whole numbers would be in doubt. Trailing zeros are no places: 29.970 and
    29.97 mean the same.
    """
    step = min(max(step, FINEST_STEP), Fraction(1, 100))
    nearest = Fraction(round(rate * 1001 / 1000) * 1000, 1001)
    is_whole = rate.denominator == 1
    return nearest if not is_whole and nearest > 0 and abs(rate - nearest) < step else rate


def _in_range(rate: Fraction) -> Fraction:
    if not MIN_FPS <= rate <= MAX_FPS:
        raise InvalidRequest(_NOT_A_RATE)
    return rate.limit_denominator(MAX_DENOMINATOR)
