"""Where a video is cut into segments: together they have every frame that is shown exactly once."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from app.platform.errors import PermanentError
from worker.video.plan import MOST_DISCARDED_FRAMES
from worker.video.timeline import OutputTimeline

# Segments bound the length of the encoder's timestamp expression, which is one argument of at most 128 KiB on Linux:
# so many frames, all of different durations, or in a longer segment so many runs of frames of equal durations.
MAX_SEGMENT_FRAMES = 2000
# From this part of its allowed length on, a segment may end early at a keyframe.
KEYFRAME_WINDOW = Fraction(1, 2)
# A remainder of up to this many full segments is divided evenly between the last two.
TAIL_SHARE = Fraction(3, 2)


@dataclass(frozen=True, kw_only=True)
class UsedFrames:
    """The network's input frames, in presentation order.

    For each: `numbers`, its source frame (of an interpolated frame, the earlier of the two); `phases`, its phase to the
    next source frame (see `timeline.FULL_PHASE`), 0 for the source frame itself; `starts`, its first tick; `repeats`,
    how many output frames show it. `end_tick` is the end of the last.
    """

    numbers: Sequence[int]
    phases: Sequence[int]
    starts: Sequence[int]
    repeats: Sequence[int]
    end_tick: int


def used_frames(timeline: OutputTimeline) -> UsedFrames:
    """The frames that at least one output frame shows."""
    numbers, phases, starts, repeats = [], [], [], []
    shown = 0
    for number, count in enumerate(timeline.repeats):
        between = timeline.between[number] if timeline.between else ()
        for phase, times in [(0, count), *((phase, 1) for phase in between)]:
            if times:
                numbers.append(number)
                phases.append(phase)
                starts.append(timeline.ticks[shown])
                repeats.append(times)
                shown += times
    if shown != len(timeline.ticks):
        raise PermanentError(
            "The video's frames could not be planned.", detail=f"{shown} != {len(timeline.ticks)}"
        )
    return UsedFrames(
        numbers=numbers, phases=phases, starts=starts, repeats=repeats, end_tick=timeline.end_tick
    )


def cut_segments(
    used: UsedFrames,
    *,
    keyframes: Sequence[int],
    max_ticks: int,
    max_frames: int,
    min_frames: int = 1,
    discarded: Sequence[int] | None = None,
    settled: Sequence[int] = (0,),
) -> list[int]:
    """The cuts: positions in `used`, from 0 to its length; each neighbouring pair is one segment.

    A segment is as long as `max_ticks` and `max_frames` (output frames) allow, but ends at a position in `keyframes` in
    its second half, which saves decoding. The remainder at the end is divided so that no segment is very short. A
    single frame may exceed the bounds, and so may the frames that a segment needs to have `min_frames` output frames.
    `settled`: the first cuts, from 0, where they are decided.

    `discarded`: for each position, how many source frames a segment that starts there decodes before it; None: none.
    A segment that discards more than MOST_DISCARDED_FRAMES exceeds the bounds, to be at least as long as what it
    discards (up to MAX_SEGMENT_FRAMES runs of frames of equal durations): then the work is in proportion to the video.
    """
    count = len(used.numbers)
    starts = [*used.starts, used.end_tick]
    shown = [0]
    for repeats in used.repeats:
        shown.append(shown[-1] + repeats)

    def load(start: int, stop: int) -> Fraction:
        """The used part of a segment's bounds; at most 1 is allowed."""
        return max(
            Fraction(starts[stop] - starts[start], max_ticks),
            Fraction(shown[stop] - shown[start], max_frames),
        )

    def furthest(start: int, limit: Fraction) -> int:
        """The last cut with a load of at most `limit`, at least one frame further."""
        by_time = bisect_right(starts, starts[start] + limit * max_ticks) - 1
        by_frames = bisect_right(shown, shown[start] + limit * max_frames) - 1
        least = bisect_left(shown, shown[start] + min_frames)
        return min(count, max(start + 1, least, min(by_time, by_frames)))

    cuts = [*settled]
    while cuts[-1] < count:
        start = cuts[-1]
        rest = load(start, count)
        if rest <= 1:
            stop = count
        else:
            stop = furthest(start, rest / 2 if rest < TAIL_SHARE else Fraction(1))
            nearest = bisect_right(keyframes, stop) - 1
            if (
                nearest >= 0
                and keyframes[nearest] > start
                and load(start, keyframes[nearest]) >= KEYFRAME_WINDOW
                and shown[keyframes[nearest]] - shown[start] >= min_frames
            ):
                stop = keyframes[nearest]
            if discarded is not None:
                stop = _extended(used, start, stop, keyframes=keyframes, discarded=discarded)
            if shown[count] - shown[stop] < min_frames:
                stop = count
        cuts.append(stop)
    return cuts


def _extended(
    used: UsedFrames, start: int, stop: int, *, keyframes: Sequence[int], discarded: Sequence[int]
) -> int:
    """The end of a segment that would end at `stop`, so that it and the next are as long as what they discard."""
    count, planned = len(used.numbers), stop
    if discarded[start] > MOST_DISCARDED_FRAMES:
        stop = max(stop, bisect_left(used.numbers, used.numbers[start] + discarded[start]))
    while (
        stop < count
        and discarded[stop] > MOST_DISCARDED_FRAMES
        and used.numbers[-1] - used.numbers[stop] < discarded[stop]
    ):
        following = bisect_right(keyframes, stop)
        stop = keyframes[following] if following < len(keyframes) else count
    return _with_few_runs(used, start, stop) if stop > planned else stop


def _with_few_runs(used: UsedFrames, start: int, stop: int) -> int:
    """`stop`, or the last position before it up to which the durations of frames have MAX_SEGMENT_FRAMES runs."""
    runs, before = 0, Fraction(0)
    for position in range(start, stop):
        end = used.starts[position + 1] if position + 1 < len(used.starts) else used.end_tick
        duration = Fraction(end - used.starts[position], used.repeats[position])
        runs += duration != before
        if runs > MAX_SEGMENT_FRAMES:
            return position
        before = duration
    return stop
