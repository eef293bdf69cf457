"""Parts of a video: `start` and `end` on the file's clock, parsed from requests."""

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil

from app.platform.errors import InvalidRequest
from app.platform.media.info import VideoProperties
from app.platform.quoting import received

MICROSECONDS = 1_000_000
# Longer than any accepted file.
MAX_SECONDS = 10**7
LONGEST_TEXT = 64

_SECONDS = re.compile(r"\+?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,2})?")
_TIMECODE = re.compile(r"(?:([0-9]{1,4}):)?([0-5]?[0-9]):([0-5][0-9](?:\.[0-9]{1,9})?)")


@dataclass(frozen=True)
class TimeRange:
    """The frames whose time is at least `start` and less than `end`, in seconds; None: to the video's end.

    Time 0 is the start of the file's earliest stream, as in players. Times are whole microseconds, as ffprobe shows
    them, and those of frames are compared as rounded to microseconds.
    """

    start: Fraction = Fraction(0)
    end: Fraction | None = None

    def __str__(self) -> str:
        until = "the end" if self.end is None else f"{float(self.end):g} s"
        return f"{float(self.start):g} s to {until}"


def time_range(start: Fraction | None, end: Fraction | None) -> TimeRange | None:
    """None where neither bound leaves anything out."""
    return TimeRange(start or Fraction(0), end) if start or end is not None else None


def parse_moment(text: str, *, name: str) -> Fraction:
    """Seconds from `83.5` or `00:01:23.5`, rounded to microseconds. Raises InvalidRequest for anything else."""
    given = text.strip()
    seconds: Fraction | None = None
    if len(given) <= LONGEST_TEXT:
        if _SECONDS.fullmatch(given):
            seconds = Fraction(given)
        elif parts := _TIMECODE.fullmatch(given):
            seconds = 3600 * int(parts[1] or 0) + 60 * int(parts[2]) + Fraction(parts[3])
    if seconds is None or seconds > MAX_SECONDS:
        raise InvalidRequest(
            f"`{name}` must be seconds, such as 83.5, or a time, such as 00:01:23.500{received(text)}"
        )
    return Fraction(round(seconds * MICROSECONDS), MICROSECONDS)


def part_of_video(video: VideoProperties, part: TimeRange | None, *, begins_at: Fraction) -> VideoProperties:
    """The expected properties of a part of a video of evenly spaced frames, whose first is shown at `begins_at`.

    Raises InvalidRequest if the part is empty or begins after the video's end.
    """
    if part is None:
        return video
    ends_at = begins_at + video.duration_seconds
    if part.end is not None and part.end <= part.start:
        raise InvalidRequest("`end` must be later than `start`.")
    if part.start >= ends_at or (part.end is not None and part.end <= begins_at):
        raise InvalidRequest(
            f"There is no video from {part}: it lasts from {float(begins_at):g} s to {float(ends_at):g} s."
        )
    first = _frames_before(video, part.start - begins_at)
    if part.end is None or part.end >= ends_at:
        stop, until = video.frames, video.duration_seconds
    else:
        until = part.end - begins_at
        stop = _frames_before(video, until)
    first = max(0, min(first, stop - 1))
    return replace(
        video,
        frames=max(1, stop - first),
        duration_seconds=max(until - first / video.frame_rate, Fraction(1, MICROSECONDS)),
    )


def _frames_before(video: VideoProperties, seconds: Fraction) -> int:
    half_microsecond = Fraction(1, 2 * MICROSECONDS)
    return max(0, min(video.frames, ceil((seconds - half_microsecond) * video.frame_rate)))
