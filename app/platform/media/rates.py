"""Frame rates as exact fractions, parsed from `target_fps` and from containers."""

import re
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from math import floor
from typing import Self

from app.platform.errors import InvalidRequest
from app.platform.quoting import received

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
    """How an output frame between two input frames is made, with `target_fps`."""

    NEAREST = "nearest"
    """An input frame, half an output frame early or late at most."""
    BLEND = "blend"
    """A mix of the two neighbouring frames, weighted by nearness."""
    MOTION = "motion"
    """A mix of the two neighbouring frames, each moved along the motion between them; across a cut, the nearest."""


@dataclass(frozen=True)
class TargetRate:
    """A user's `target_fps`: the exact rate, and the number that was sent for it, 29.97 for 30000/1001."""

    exact: Fraction
    sent: float

    @classmethod
    def parse(cls, value: str | float | int | Decimal | Fraction) -> Self:
        """As `parse_target_fps`. A fraction was sent as the number that it is."""
        text = str(value).strip()
        exact = parse_target_fps(text)
        return cls(exact=exact, sent=float(Fraction(text)))


def parse_target_fps(value: str | float | int | Decimal) -> Fraction:
    """The exact rate of a user's `target_fps`: frames per second, 1 to 120 inclusive.

    `value` is a number, or text in decimal notation or as `numerator/denominator`. Integers and fractions are exact. A
    decimal of two or more places that is a rounded or truncated n*1000/1001 becomes that rate (see `snap_ntsc`):
    23.976, 29.97, 59.94005994. Any other decimal keeps its value (12.5 is 25/2), as the nearest fraction with a
    denominator of at most a million. Raises InvalidRequest for everything else, including NaN and infinity.
    """
    rate = None if isinstance(value, bool) else _read_rate(value)
    if rate is None or not MIN_FPS <= rate <= MAX_FPS:
        has_comma = isinstance(value, str) and re.fullmatch(r"\s*[0-9]+,[0-9]+\s*", value)
        raise InvalidRequest(
            f"`target_fps` must be a number from {MIN_FPS} to {MAX_FPS}, such as 24, 29.97 or 30000/1001"
            f"{received(value)}{' Decimals follow a point.' if has_comma else ''}"
        )
    return rate.limit_denominator(MAX_DENOMINATOR)


def _read_rate(value: str | float | int | Decimal) -> Fraction | None:
    """The rate, which may be out of range; None for what is no rate, or far out of range."""
    if isinstance(value, int):
        return Fraction(value)
    # A float's repr is the shortest text with that value: what the user wrote.
    text = str(value).strip() if isinstance(value, str | Decimal) else repr(float(value))
    if len(text) > LONGEST_NUMBER:
        return None
    if fraction := _FRACTION.fullmatch(text):
        numerator, denominator = int(fraction[1]), int(fraction[2])
        return Fraction(numerator, denominator) if denominator else None
    if not _DECIMAL.fullmatch(text):
        return None
    number = Decimal(text)
    # Before the conversion to a fraction: 1e400 would have four hundred digits.
    if not MIN_FPS <= number <= MAX_FPS:
        return None
    exact = Fraction(number)
    exponent = number.normalize().as_tuple().exponent
    places = -exponent if isinstance(exponent, int) else 0
    return snap_ntsc(exact, step=Fraction(1, 10**places)) if places >= 2 else exact


def parse_retime(text: str) -> Retime:
    """Raises InvalidRequest for an unknown name."""
    try:
        return Retime(text)
    except ValueError:
        known = ", ".join(f'"{way}"' for way in Retime)
        raise InvalidRequest(f"`retime` must be one of {known}{received(text)}") from None


def frames_at_rate(duration_seconds: Fraction, target_fps: Fraction) -> int:
    """The number of frames at `target_fps` in that duration, rounded (halves up), at least 1."""
    return max(1, floor(duration_seconds * target_fps + Fraction(1, 2)))


def film_rate(frame_rate: Fraction) -> Fraction:
    """The rate of the film in a telecined video of `frame_rate`: 24000/1001, but 24 or 25 where the rate is whole.

    24 frames a second become 60 fields, 25 become 50. The rate may be an average over passages of several kinds.
    """
    if frame_rate in (24, 30, 60):
        return Fraction(24)
    return Fraction(25) if frame_rate in (25, 50) else Fraction(24000, 1001)


def snap_ntsc(rate: Fraction, *, step: Fraction) -> Fraction:
    """The n*1000/1001 (n a whole number) that is less than `step` from `rate`, else `rate`.

    `step` is the value of the last decimal place that `rate` was written with, so that both a rounded (23.98) and a
    truncated rate (23.97) match. It is clamped to at least 1/100000, to match single-precision numbers, and to at most
    1/100, because 1/10 would make whole numbers ambiguous. Trailing zeros do not count as places: 29.970 is 29.97.
    """
    step = min(max(step, FINEST_STEP), Fraction(1, 100))
    nearest = Fraction(round(rate * 1001 / 1000) * 1000, 1001)
    is_whole = rate.denominator == 1
    return nearest if not is_whole and nearest > 0 and abs(rate - nearest) < step else rate
