"""How a render's picture is finished, as requests ask for it."""

import re
from enum import StrEnum

from app.platform.errors import InvalidRequest
from app.platform.quoting import received

# The most of `stabilise`, and how many frames before and after a frame are then averaged with it.
MOST_STABILISE = 3
STABILISED_RADIUS = 2


class Deinterlace(StrEnum):
    """What is made of interlaced frames, which are two fields each."""

    AUTO = "auto"
    """One frame of each that is marked as interlaced, by itself or by the file."""
    OFF = "off"
    """Nothing: frames stay as they are stored."""
    FRAME = "frame"
    """One frame of each, whatever its marks."""
    FIELD = "field"
    """Two frames of each, whatever its marks: one of each field, at twice the rate."""
    DETELECINE = "detelecine"
    """The film's frames of a film that was spread over fields, whatever the marks: 24 a second of 60 fields."""


def parse_deinterlace(text: str) -> Deinterlace:
    """Raises InvalidRequest for an unknown name."""
    try:
        return Deinterlace(text)
    except ValueError:
        known = ", ".join(f'"{way}"' for way in Deinterlace)
        raise InvalidRequest(f"`deinterlace` must be one of {known}{received(text)}") from None


def parse_share(text: str, *, name: str) -> float:
    """Raises InvalidRequest for anything but a number from 0 to 1."""
    number = text.strip()
    if re.fullmatch(r"\+?([0-9]{1,20}\.?[0-9]{0,40}|\.[0-9]{1,40})([eE][+-]?[0-9]{1,3})?", number):
        share = float(number)
        if 0 <= share <= 1:
            return share
    raise InvalidRequest(f"`{name}` must be a number from 0 to 1{received(text)}")


def parse_stabilise(text: str) -> int:
    """Raises InvalidRequest for anything but a whole number from 0 to MOST_STABILISE."""
    whole = re.fullmatch(r"\+?0*([0-9])(?:\.0+)?", text.strip())
    if whole and int(whole[1]) <= MOST_STABILISE:
        return int(whole[1])
    raise InvalidRequest(f"`stabilise` must be a whole number from 0 to {MOST_STABILISE}{received(text)}")
