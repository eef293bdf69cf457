"""Joining segments by stream copy so that every timestamp, and the length of the last frame, comes out exactly.

The concat demuxer shifts each segment to the sum of the durations before it, which it counts in microseconds. Durations
are therefore given as differences of rounded sums, so that no error adds up: each start is off by half a microsecond at
most, which ticks no finer than a microsecond round away. For finer ticks the rest is added back, segment by segment, by
the `setts` bitstream filter.

The same filter settles what the MP4 muxer cannot know: decoding times at the very start, and how long the last frame
is shown. MP4 has two durations of a track: the edit list's (from the largest pts plus duration) and the media's (from
decoding times, up to the last packet's duration). Players take the shorter one, so both must be the video's.
"""

from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate, pairwise

from worker.video.encoder import expression_tree
from worker.video.plan import RenderPlan, SegmentPlan
from worker.video.recheck import WrittenVideo
from worker.video.timeline import MICROSECONDS


def concat_list(names: Sequence[str], segments: Sequence[SegmentPlan], *, timescale: int) -> str:
    """An ffconcat script that plays the files one after the other."""
    lines = ["ffconcat version 1.0"]
    starts = _starts_microseconds(segments, timescale)
    for name, (start, end) in zip(names, pairwise(starts), strict=True):
        seconds, rest = divmod(end - start, MICROSECONDS)
        lines += [f"file {name}", f"duration {seconds}.{rest:06d}"]
    return "\n".join(lines) + "\n"


def timestamp_filter(
    render: RenderPlan, segments: Sequence[SegmentPlan], *, first: WrittenVideo, last: WrittenVideo
) -> str:
    """The setts bitstream filter for the joined packets. `first`, `last`: the files of the outer segments."""
    shift = _corrections(render, segments)
    last_start = segments[-1].start_tick
    last_pts, last_dts = last_start + last.pts[-1], last_start + last.dts[-1]
    greatest_pts = last_start + max(last.pts)
    held_back = sum(1 for dts in first.dts if dts < 0)
    dts, last_duration = decoding_times(
        held_back=held_back,
        natural_delay=-first.dts[0],
        greatest_pts=greatest_pts,
        last_pts=last_pts,
        last_dts=last_dts,
        total_ticks=render.total_ticks,
    )
    offset = f"+{render.offset_ticks}" if render.offset_ticks else ""
    packets = render.frame_count
    duration = f"if(eq(N\\,{packets - 1})\\,{last_duration}\\,1)"
    if greatest_pts != last_pts:
        # Expressions see timestamps as they come from the demuxer.
        duration = f"if(eq(PTS{shift}\\,{greatest_pts})\\,{render.total_ticks - greatest_pts}\\,{duration})"
    return f"setts=pts=PTS{shift}{offset}:dts={_with_shift(dts, shift)}{offset}:duration={duration}"


def _with_shift(dts: str | None, shift: str) -> str:
    if dts is None:
        return f"DTS{shift}"
    return dts.replace("DTS", f"DTS{shift}")


def decoding_times(
    *,
    held_back: int,
    natural_delay: int,
    greatest_pts: int,
    last_pts: int,
    last_dts: int,
    total_ticks: int,
) -> tuple[str | None, int]:
    """An expression for the decoding times, None to keep them; and the last packet's duration.

    `held_back`: packets decoded before the first frame is shown, `natural_delay` ticks before it at most.

    With `delay` ticks between the first packet's decoding and the first frame's showing, the media lasts
    `last_dts + duration + delay`, which shall be `total_ticks`; and `last_pts + duration` may not pass `total_ticks`,
    or the edit list gets too long (nor fall short of it, where no other packet is shown later). Where the encoder's
    delay cannot meet both, the least that does takes its place.
    """
    most = total_ticks - last_pts
    duration = total_ticks - natural_delay - last_dts
    least = most if last_pts == greatest_pts else 1
    if least <= duration <= most:
        return None, duration
    if held_back == 0:
        return None, most
    delay = max(held_back, last_pts - last_dts)
    start = f"if(lt(N\\,{held_back})\\,N-{held_back}\\,DTS)"
    return f"if(eq(N\\,0)\\,-{delay}\\,{start})", total_ticks - delay - last_dts


def _corrections(render: RenderPlan, segments: Sequence[SegmentPlan]) -> str:
    """What to add to a timestamp so that its segment starts where planned; empty where nothing is off."""
    starts = _starts_microseconds(segments, render.timescale)
    packets = [0, *accumulate(segment.output_frames for segment in segments)]
    leaves: list[tuple[int, str]] = []
    for segment, microseconds, packet in zip(segments, starts, packets, strict=False):
        error = segment.start_tick - _to_ticks(microseconds, render.timescale)
        if not leaves or leaves[-1][1] != str(error):
            leaves.append((packet, str(error)))
    return "" if leaves == [(0, "0")] else f"+{expression_tree(leaves)}"


def _starts_microseconds(segments: Sequence[SegmentPlan], timescale: int) -> list[int]:
    """When each segment starts, and the last one ends, to the nearest microsecond."""
    ticks = [
        *(segment.start_tick for segment in segments),
        segments[-1].start_tick + segments[-1].duration_ticks,
    ]
    return [round(Fraction(tick * MICROSECONDS, timescale)) for tick in ticks]


def _to_ticks(microseconds: int, timescale: int) -> int:
    """As ffmpeg rescales: to the nearest, halves away from zero."""
    return (2 * microseconds * timescale + MICROSECONDS) // (2 * MICROSECONDS)
