"""Joins so many segments that the corrections of their timestamps exceed one argument: groups first, then these.

A group's file is to the whole what a segment's is: it starts at zero, and its last frame ends where the next begins.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from app.platform.media.ffmpeg import FfmpegRunner
from worker.video.join import concat_stream, timestamp_filter, write_concat_list
from worker.video.plan import RenderPlan, SegmentPlan
from worker.video.timestamp_check import read_back

# Linux takes arguments of up to 128 KiB.
LONGEST_FILTER = 96 * 1024
# The corrections of so many take 40 KiB at most.
GROUP_SEGMENTS = 512


def join_groups(
    runner: FfmpegRunner,
    files: Sequence[Path],
    *,
    render: RenderPlan,
    segments: Sequence[SegmentPlan],
    directory: Path,
    cancelled: Callable[[], bool],
) -> tuple[list[Path], list[SegmentPlan]]:
    """Write the groups' files to `directory`. Returns them and, in place of the segments, a plan for each.

    Raises what FfmpegRunner.run and `read_back` raise.
    """
    joined, plans = [], []
    for number, start in enumerate(range(0, len(segments), GROUP_SEGMENTS)):
        scratch = directory / f"group-{number}"
        scratch.mkdir()
        destination = directory / f"group-{number}{render.segment_file.suffix}"
        own_files = files[start : start + GROUP_SEGMENTS]
        own = segments[start : start + GROUP_SEGMENTS]
        plan = replace(
            own[0],
            index=number,
            repeats=(sum(segment.output_frames for segment in own),),
            between=(),
            runs=tuple(chain.from_iterable(segment.runs for segment in own)),
        )
        # As a video of its own, which starts at zero.
        part = replace(
            render,
            total_ticks=plan.duration_ticks,
            offset_ticks=0,
            frame_count=plan.output_frames,
            segment_count=len(own),
        )
        moved = [
            replace(segment, index=index, start_tick=segment.start_tick - plan.start_tick)
            for index, segment in enumerate(own)
        ]
        first, last = read_back(runner, own_files[0]), read_back(runner, own_files[-1])
        concat = write_concat_list(scratch, own_files, moved, timescale=render.segment_timescale)
        timestamps = timestamp_filter(part, moved, first=first, last=last)
        write_joined(runner, concat, destination, render=render, timestamps=timestamps, cancelled=cancelled)
        joined.append(destination)
        plans.append(plan)
    return joined, plans


def write_joined(
    runner: FfmpegRunner,
    concat: Path,
    destination: Path,
    *,
    render: RenderPlan,
    timestamps: str,
    cancelled: Callable[[], bool],
) -> None:
    """Write the video of a list of segments, with the `timestamps` of that filter, to a file like a segment's.

    Raises what FfmpegRunner.run raises.
    """
    stream = runner.output(
        concat_stream(runner, concat, render=render),
        destination,
        **render.segment_file.video_options(
            codec=render.codec, timescale=render.timescale, movie_timescale=render.timescale
        ),
        **{"c:v": "copy", "bsf:v": timestamps},
        **render.alpha_tag,
    )
    runner.run(stream, purpose="joining the segments", cancelled=cancelled)
