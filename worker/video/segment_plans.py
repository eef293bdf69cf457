"""Makes the plans of segments of what they show and where their frames are found."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from math import floor

from worker.video.cuts import UsedFrames
from worker.video.frame_scan import EARLIER_SEEK_SECONDS, FrameScan
from worker.video.input_ranges import InputRanges
from worker.video.plan import SegmentPlan
from worker.video.timeline import OutputTimeline


def has_frames_of(scan: FrameScan, segment: SegmentPlan) -> bool:
    """Whether the scan has the segment's frames."""
    first = segment.first_frame
    stop = first + segment.source_frames
    pts = scan.timeline.pts[first:stop]
    return (
        len(pts) == segment.source_frames
        and (pts[0], pts[-1]) == (segment.first_pts, segment.last_pts)
        and tuple(scan.checksums[first:stop]) == segment.checksums
    )


def discarded_before_segments(
    used: UsedFrames, scan: FrameScan, *, frames_before: int, around: int
) -> list[int]:
    """As `discarded_frames_before`, for segments with so many frames before them: before the first of these."""
    discarded = discarded_frames_before(used, scan, frames_before=frames_before)
    return [discarded[max(0, position - around)] for position in range(len(discarded))]


def discarded_frames_before(used: UsedFrames, scan: FrameScan, *, frames_before: int) -> list[int]:
    """For each position in `used`, how many source frames a segment that starts there decodes before it."""
    if not scan.is_trusted:
        return list(used.numbers)
    pts = scan.timeline.pts
    # Decoding never seeks to the first keyframe: it starts at the file's start.
    starts = [0, *(bisect_left(pts, time) for time, _ in scan.keyframes[1:])]
    found = (
        bisect_right(scan.keyframes, pts[max(0, number - frames_before)], key=_pts) for number in used.numbers
    )
    return [
        max(0, number - starts[max(0, keyframe - 1)])
        for number, keyframe in zip(used.numbers, found, strict=True)
    ]


def _pts(keyframe: tuple[int, int]) -> int:
    return keyframe[0]


def keyframe_cuts(used: UsedFrames, scan: FrameScan) -> list[int]:
    """Positions in `used` at which decoding can start at a keyframe that no earlier used frame follows."""
    positions = []
    pts = scan.timeline.pts
    at = 0
    times = [keyframe[0] for keyframe in scan.keyframes]
    for position in range(1, len(used.numbers)):
        before, here = pts[used.numbers[position - 1]], pts[used.numbers[position]]
        at = bisect_right(times, before, lo=at)
        if at < len(times) and times[at] <= here:
            positions.append(position)
    return positions


def make_segments(
    cuts: Sequence[int],
    *,
    used: UsedFrames,
    scan: FrameScan,
    timeline: OutputTimeline,
    seeks_by_pts: bool,
    frames_before: int,
    discarded: Sequence[int],
    after: Sequence[SegmentPlan],
    around: tuple[int, int] = (0, 0),
) -> list[SegmentPlan]:
    """Those between the cuts, and before them the segments `after` which they come. `frames_before`: how many frames
    before its first a segment must decode; `discarded`: see `cut_segments`; `around`: how many of the used frames
    before a segment, and after it, go through the network with it.
    """
    pts = scan.timeline.pts
    key_times = [keyframe[0] for keyframe in scan.keyframes]
    segments = [*after]
    shown = sum(segment.output_frames for segment in after)
    for start, stop in pairwise(cuts):
        leading, trailing = min(around[0], start), min(around[1], len(used.numbers) - stop)
        begin, end = start - leading, stop + trailing
        first, last = used.numbers[begin], used.numbers[end - 1] + (used.phases[end - 1] > 0)
        repeats, between = _segment_frames(used, begin, end, count=last - first + 1, shown=range(start, stop))
        frames = sum(used.repeats[start:stop])
        end_tick = used.starts[stop] if stop < len(used.starts) else used.end_tick
        seeks = _seek_points(key_times, pts[max(0, first - frames_before)], time_base=scan.timeline.time_base)
        segments.append(
            SegmentPlan(
                index=len(segments),
                first_frame=first,
                first_pts=pts[first],
                last_pts=pts[last],
                seek_ticks=tuple(scan.keyframes[seek][0 if seeks_by_pts else 1] for seek in seeks),
                repeats=repeats,
                between=between,
                checksums=tuple(scan.checksums[first : last + 1]),
                start_tick=used.starts[start],
                runs=run_lengths([*timeline.ticks[shown : shown + frames], end_tick]),
                discarded_frames=discarded[start],
                input_ranges=_input_ranges(scan, scan.keyframes[seeks[0]] if seeks else None, pts[last]),
                leading=leading,
                trailing=trailing,
            )
        )
        shown += frames
    return segments


def _input_ranges(scan: FrameScan, keyframe: tuple[int, int] | None, last_pts: int) -> InputRanges | None:
    if scan.ranges is None or not scan.is_trusted:
        return None
    return scan.ranges.of_segment(keyframe_pts=None if keyframe is None else keyframe[0], last_pts=last_pts)


def _segment_frames(
    used: UsedFrames, start: int, stop: int, *, count: int, shown: range
) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """`repeats` and `between` of a segment of `count` source frames, which shows those at the positions `shown`."""
    repeats = [0] * count
    between: list[list[int]] = [[] for _ in range(count)]
    for position in range(start, stop):
        number = used.numbers[position] - used.numbers[start]
        if used.phases[position]:
            between[number].append(used.phases[position])
        else:
            repeats[number] = used.repeats[position] if position in shown else 1
    return tuple(repeats), tuple(map(tuple, between)) if any(between) else ()


def run_lengths(ticks: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Runs of equal frame duration as (frames, duration of each); the last tick is the end of the last frame."""
    runs: list[tuple[int, int]] = []
    for before, after in pairwise(ticks):
        if runs and runs[-1][1] == after - before:
            runs[-1] = (runs[-1][0] + 1, after - before)
        else:
            runs.append((1, after - before))
    return tuple(runs)


def _seek_points(key_times: Sequence[int], first_pts: int, *, time_base: Fraction) -> list[int]:
    """Indices of the keyframes to start decoding at: the last at or before the frame, and one well before it; none of
    them is the file's first.
    """
    nearest = bisect_right(key_times, first_pts) - 1
    if nearest <= 0:
        return []
    earlier = bisect_right(key_times, floor(key_times[nearest] - EARLIER_SEEK_SECONDS / time_base)) - 1
    return [nearest, earlier] if earlier > 0 else [nearest]
