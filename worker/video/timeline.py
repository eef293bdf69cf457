"""Output timing in integers: when each output frame is shown, which source frames it comes from, the time base.

Pure arithmetic on ticks. A source frame's timestamp is `pts`, in ticks of the source's time base; the output counts
from 0 at the first frame, in ticks of `1/timescale` seconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from math import floor, gcd

from app.platform.media.rates import Retime, frames_at_rate
from app.platform.media.time_range import TimeRange

# The concat demuxer counts the starts of files in microseconds: finer ticks would be rounded by it.
MICROSECONDS = 1_000_000
# With finer ticks, long frames overflow MP4's 32-bit durations.
MAX_TIMESCALE = 10_000_000
# Least timescale for an offset that the video's own ticks cannot express.
OFFSET_TIMESCALE = 90_000
# The phase of the next source frame; 0 is this one. One step changes no 16-bit sample by more than one code.
FULL_PHASE = 65_536
# A source frame that is shown for longer is static on purpose (a slide, an idle screen): nothing is interpolated.
MAX_INTERPOLATED_SECONDS = Fraction(1, 2)


@dataclass(frozen=True, kw_only=True)
class SourceTimeline:
    """The decoded source frames. `pts` strictly increases; `end_pts` is the end of the last frame."""

    time_base: Fraction
    pts: Sequence[int]
    end_pts: int

    @property
    def duration_seconds(self) -> Fraction:
        return (self.end_pts - self.pts[0]) * self.time_base


@dataclass(frozen=True, kw_only=True)
class OutputTimeline:
    """`repeats[i]` output frames show source frame i, one after the other; 0 where it is not shown.

    Those interpolated between source frames i and i + 1 follow: `between[i]` are their phases, each above 0 and below
    FULL_PHASE; `between` is empty if no frame is interpolated. `ticks` are the timestamps of the output frames,
    `end_tick` is the end of the last one.
    """

    timescale: int
    repeats: Sequence[int]
    ticks: Sequence[int]
    end_tick: int
    between: Sequence[tuple[int, ...]] = ()


def plan_output_timeline(
    source: SourceTimeline, *, target_fps: Fraction | None, retime: Retime = Retime.NEAREST
) -> OutputTimeline:
    """Each source frame once at its own time; with `target_fps`, at each of its times the source frame of that moment
    (see `nearest_frames`) or, with another `retime` than NEAREST, a frame interpolated between two.
    """
    if target_fps is not None:
        return _constant_rate(source, target_fps, retime)
    first = source.pts[0]
    numerator = source.time_base.numerator
    ticks = [(pts - first) * numerator for pts in source.pts]
    end_tick = (source.end_pts - first) * numerator
    timescale = source.time_base.denominator
    if timescale > MICROSECONDS:
        timescale, ticks, end_tick = _coarsen(timescale, ticks, end_tick)
    return OutputTimeline(timescale=timescale, repeats=[1] * len(ticks), ticks=ticks, end_tick=end_tick)


def nearest_frames(source: SourceTimeline, *, count: int, frame_rate: Fraction) -> list[int]:
    """How often each source frame is shown by `count` frames at `frame_rate`.

    A source frame is new at the output frame that is nearest to its timestamp (the later of two equally near ones), and
    stays until another one is new: it comes half an output frame early or late at most. Where several are new at one
    output frame, the nearest is shown; the last of them if it stays for longer.
    """
    first = source.pts[0]
    # Output frame i is at exactly i * step / unit ticks of the source.
    step_ticks = 1 / (frame_rate * source.time_base)
    step, unit = step_ticks.numerator, step_ticks.denominator
    places = [(pts - first) * unit for pts in source.pts]
    new_at = [(2 * place + step) // (2 * step) for place in places]
    repeats = [0] * len(places)
    shown = upcoming = 0
    for index in range(count):
        new = upcoming
        while upcoming < len(places) and new_at[upcoming] <= index:
            upcoming += 1
        if upcoming > new:
            stays = index + 1 < count and (upcoming == len(places) or new_at[upcoming] > index + 1)
            shown = (
                upcoming - 1
                if stays
                else min(range(new, upcoming), key=lambda frame: abs(places[frame] - index * step))
            )
        repeats[shown] += 1
    return repeats


def interpolated_frames(
    source: SourceTimeline, *, count: int, frame_rate: Fraction
) -> tuple[list[int], list[tuple[int, ...]]]:
    """`repeats` and `between` of an OutputTimeline of `count` frames at `frame_rate`.

    Phases are rounded to the nearest integer; 0 and FULL_PHASE show the source frame itself. A source frame that lasts
    longer than MAX_INTERPOLATED_SECONDS, or is the last, is shown until it ends.
    """
    repeats = [0] * len(source.pts)
    between: list[tuple[int, ...]] = [()] * len(source.pts)
    first = source.pts[0]
    # Output frame i is at exactly i * step / unit ticks of the source.
    step_ticks = 1 / (frame_rate * source.time_base)
    step, unit = step_ticks.numerator, step_ticks.denominator
    longest = floor(MAX_INTERPOLATED_SECONDS / source.time_base)
    last = len(source.pts) - 1
    current = 0
    for index in range(count):
        while current < last and index * step >= (source.pts[current + 1] - first) * unit:
            current += 1
        gap = source.pts[current + 1] - source.pts[current] if current < last else 0
        if gap == 0 or gap > longest:
            repeats[current] += 1
            continue
        passed = index * step - (source.pts[current] - first) * unit
        phase = (2 * FULL_PHASE * passed + gap * unit) // (2 * gap * unit)
        if phase == 0:
            repeats[current] += 1
        elif phase == FULL_PHASE:
            repeats[current + 1] += 1
        else:
            between[current] = (*between[current], phase)
    return repeats, between


def without_equal_neighbours(timeline: OutputTimeline, checksums: Sequence[int]) -> OutputTimeline:
    """The timeline without interpolation between two equal source frames: the earlier is repeated instead."""
    if not timeline.between:
        return timeline
    repeats, between = list(timeline.repeats), list(timeline.between)
    for number, (here, following) in enumerate(pairwise(checksums)):
        if here == following:
            repeats[number] += len(between[number])
            between[number] = ()
    return replace(timeline, repeats=repeats, between=between if any(between) else ())


def _constant_rate(source: SourceTimeline, frame_rate: Fraction, retime: Retime) -> OutputTimeline:
    count = frames_at_rate(source.duration_seconds, frame_rate)
    between: list[tuple[int, ...]] = []
    if retime is Retime.NEAREST:
        repeats = nearest_frames(source, count=count, frame_rate=frame_rate)
    else:
        repeats, between = interpolated_frames(source, count=count, frame_rate=frame_rate)
    return OutputTimeline(
        timescale=frame_rate.numerator,
        repeats=repeats,
        between=between if any(between) else (),
        ticks=range(0, count * frame_rate.denominator, frame_rate.denominator),
        end_tick=count * frame_rate.denominator,
    )


def _coarsen(timescale: int, ticks: list[int], end_tick: int) -> tuple[int, list[int], int]:
    """A coarser timescale that expresses the ticks exactly; if even that is finer than MP4 allows (as Matroska's
    nanoseconds may be), ticks rounded to microseconds.
    """
    common = gcd(timescale, end_tick, *ticks)
    timescale, end_tick = timescale // common, end_tick // common
    ticks = [tick // common for tick in ticks]
    if timescale <= MAX_TIMESCALE:
        return timescale, ticks, end_tick
    rounded = [_rescale(tick, timescale, MICROSECONDS) for tick in ticks]
    # Frames closer than a microsecond would get equal ticks.
    for index in range(1, len(rounded)):
        rounded[index] = max(rounded[index], rounded[index - 1] + 1)
    return MICROSECONDS, rounded, max(_rescale(end_tick, timescale, MICROSECONDS), rounded[-1] + 1)


def _rescale(tick: int, from_scale: int, to_scale: int) -> int:
    return (2 * tick * to_scale + from_scale) // (2 * from_scale)


def apply_offset(timeline: OutputTimeline, offset_seconds: Fraction) -> tuple[OutputTimeline, int]:
    """The timeline in ticks that express `offset_seconds` (0 or more) too, and the offset in those ticks.

    The ticks are kept if they express it already; else they are divided: exactly if the result is coarse enough for the
    join, otherwise to 1/90000 s or finer, to which the offset is rounded.
    """
    wanted = (offset_seconds * timeline.timescale).denominator
    if timeline.timescale * wanted <= MICROSECONDS:
        factor = wanted
    else:
        factor = max(1, -(-OFFSET_TIMESCALE // timeline.timescale))
    finer = replace(
        timeline,
        timescale=timeline.timescale * factor,
        ticks=[tick * factor for tick in timeline.ticks] if factor > 1 else timeline.ticks,
        end_tick=timeline.end_tick * factor,
    )
    return finer, round(offset_seconds * finer.timescale)


def after_frames(timeline: OutputTimeline, count: int) -> OutputTimeline:
    """The timeline with `count` further source frames before its own, which are not shown."""
    if not count:
        return timeline
    between = [*([()] * count), *timeline.between] if timeline.between else ()
    return replace(timeline, repeats=[*([0] * count), *timeline.repeats], between=between)


def up_to_end(shown: SourceTimeline, input_start_seconds: Fraction, part: TimeRange) -> SourceTimeline:
    """The timeline whose last frame ends with the part, to the tick."""
    if part.end is None:
        return shown
    end = round((input_start_seconds + part.end) / shown.time_base)
    return replace(shown, end_pts=max(shown.pts[-1] + 1, min(shown.end_pts, end)))


def increasing_timestamps(pts: Sequence[int], *, nominal: int) -> tuple[list[int], bool]:
    """Timestamps that strictly increase, and whether any had to be changed.

    `pts` never decreases, as ffmpeg delivers it; `nominal` is the usual distance. Frames that share a timestamp (it
    was missing, doubled, or went backwards) are spread evenly up to the next one that differs, at most `nominal` apart.
    All other frames keep their timestamps.
    """
    repaired = list(pts)
    changed = False
    start = 0
    while start < len(repaired):
        stop = start + 1
        while stop < len(repaired) and pts[stop] <= repaired[start]:
            stop += 1
        count = stop - start
        if count > 1:
            changed = True
            room = pts[stop] - repaired[start] if stop < len(repaired) else count * nominal
            for index in range(1, count):
                offset = min(index * nominal, index * room // count)
                repaired[start + index] = max(repaired[start] + offset, repaired[start + index - 1] + 1)
        # Too small a gap delays the following frames, by a tick each.
        if stop < len(repaired) and repaired[stop] <= repaired[stop - 1]:
            repaired[stop] = repaired[stop - 1] + 1
        start = stop
    return repaired, changed


def average_rate(timeline: SourceTimeline, examined: Fraction) -> Fraction:
    """The probed rate if the decoded frames agree with it up to rounded timestamps; else their own average: some may
    not have been decoded, or may lack timestamps.
    """
    count = len(timeline.pts)
    if abs(count / examined - timeline.duration_seconds) <= 2 * timeline.time_base:
        return examined
    return count / timeline.duration_seconds
