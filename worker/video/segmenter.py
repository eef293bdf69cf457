"""Plans a render: a RenderPlan, and segments that together contain every output frame exactly once."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from itertools import pairwise
from math import floor
from pathlib import Path

from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.probe import MediaInfo
from app.platform.media.rates import Retime
from worker.video.colour import plan_colour
from worker.video.continuous import ContinuousCopy
from worker.video.cuts import MAX_SEGMENT_FRAMES, UsedFrames, cut_segments, used_frames
from worker.video.deinterlace import FRAMES_BEFORE, plan_deinterlacing
from worker.video.encoder import MIN_REORDERED_FRAMES, choose_codec
from worker.video.hdr_metadata import ALPHA_WARNING, read_source_metadata
from worker.video.plan import RenderPlan, SegmentPlan
from worker.video.scan import FrameScan, scan_frames
from worker.video.timeline import (
    OutputTimeline,
    SourceTimeline,
    apply_offset,
    plan_output_timeline,
    without_equal_neighbours,
)
from worker.video.transparency import is_transparent

MICROSECOND = Fraction(1, 1_000_000)
# Least distance of the fallback keyframe before the nearest one.
EARLIER_SEEK_SECONDS = 2
# Formats in which ffmpeg seeks by presentation time; in others (MPEG-TS, AVI, ...) by decoding time.
SEEKS_BY_PTS = ("mov", "matroska")


def plan_render(
    runner: FfmpegRunner,
    path: Path,
    info: MediaInfo,
    *,
    scale: int,
    target_fps: Fraction | None,
    segment_seconds: Fraction,
    segment_max_output_pixels: int,
    retime: Retime = Retime.NEAREST,
    continuous: ContinuousCopy | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> tuple[RenderPlan, list[SegmentPlan]]:
    """Read the whole video once and plan its render.

    `segment_seconds` bounds a segment's length, `segment_max_output_pixels` its output pixels; a segment has at least
    one upscaled frame with all its repeats, and more than the bounds allow where decoding begins far before it.
    `retime` applies with `target_fps` only. `continuous`: how `path` was made,
    if it is a copy. Raises PermanentError if the video cannot be rendered, Canceled once `cancelled` returns True,
    FfmpegError if ffmpeg fails.
    """
    video = info.video
    colour = plan_colour(video, scale=scale)
    metadata = read_source_metadata(runner, path, info, colour=colour)
    scan_with = partial(
        scan_frames,
        runner,
        path,
        video=video,
        source=colour.source,
        decoded_pix_fmts=colour.decoded_pix_fmts,
        expansion=colour.expansion,
        cancelled=cancelled,
    )
    deinterlacing = metadata.deinterlacing if metadata.is_interlaced else None
    scan = scan_with(deinterlacing=deinterlacing)
    warnings = [*scan.warnings, *colour.warnings, *metadata.warnings]
    transparent = partial(is_transparent, runner, path, stream_index=video.index, cancelled=cancelled)
    if colour.has_alpha and ALPHA_WARNING not in warnings and transparent():
        warnings.append(ALPHA_WARNING)
    if scan.has_interlaced and not metadata.is_interlaced:
        # Later frames are interlaced, although the first ones are not.
        deinterlacing, more = plan_deinterlacing(runner, info, has_interlaced=True)
        warnings += more
        if deinterlacing is not None:
            scan = scan_with(deinterlacing=deinterlacing)
    timeline = plan_output_timeline(scan.timeline, target_fps=target_fps, retime=retime)
    timeline = without_equal_neighbours(timeline, scan.checksums)
    start_seconds = scan.timeline.pts[0] * video.time_base
    input_start_seconds = input_start(info.format_name, info.start_seconds, start_seconds)
    timeline, offset_ticks = apply_offset(timeline, start_seconds - input_start_seconds)
    output_pixels = colour.target.width * colour.target.height
    used = used_frames(timeline)
    frames_before = 0 if deinterlacing is None else FRAMES_BEFORE
    discarded = _discarded_frames(used, scan, frames_before=frames_before)
    cuts = cut_segments(
        used,
        keyframes=_keyframe_cuts(used, scan),
        max_ticks=max(1, floor(segment_seconds * timeline.timescale)),
        max_frames=min(MAX_SEGMENT_FRAMES, max(1, segment_max_output_pixels // output_pixels)),
        discarded=discarded,
    )
    by_pts = any(name in SEEKS_BY_PTS for name in info.format_name.split(","))
    segments = _make_segments(
        cuts,
        used=used,
        scan=scan,
        timeline=timeline,
        seeks_by_pts=by_pts,
        frames_before=frames_before,
        discarded=discarded,
    )
    render = RenderPlan(
        stream_index=video.index,
        source=colour.source,
        target=colour.target,
        decoded_pix_fmts=colour.decoded_pix_fmts,
        source_time_base=video.time_base,
        seekable=scan.is_trusted,
        tags=colour.tags,
        codec=choose_codec(colour.target),
        reorder=len(segments) == 1 or min(one.output_frames for one in segments) >= MIN_REORDERED_FRAMES,
        sample_aspect_ratio=video.sample_aspect_ratio,
        timescale=timeline.timescale,
        total_ticks=timeline.end_tick,
        offset_ticks=offset_ticks,
        input_start_seconds=input_start_seconds,
        frame_count=len(timeline.ticks),
        source_frame_count=len(scan.timeline.pts),
        frame_rate=target_fps or _average_rate(scan.timeline, video.frame_rate),
        segment_count=len(segments),
        retime=retime if timeline.between else Retime.NEAREST,
        warnings=(
            *(continuous.warnings if continuous else ()),
            *warnings,
        ),
        is_turned=video.rotation != 0 or video.is_mirrored,
        continuous=continuous,
        deinterlacing=deinterlacing,
        expansion=colour.expansion,
        mastering_display=metadata.mastering_display,
        content_light=metadata.content_light,
        spatial=metadata.spatial,
    )
    return render, segments


def input_start(format_name: str, file_start: Fraction, video_start: Fraction) -> Fraction:
    """The timestamp of the input, in seconds, that becomes 0 in the output.

    `file_start`: the earliest timestamp of all streams, to the microsecond; `video_start`: the video's first, exactly.
    """
    if file_start < 0 and "matroska" in format_name.split(","):
        # Matroska's own timestamps are not negative. What ffmpeg puts before 0 is the preroll of an audio decoder,
        # which is not played.
        file_start = Fraction(0)
    return video_start if video_start - file_start < MICROSECOND else file_start


def _average_rate(timeline: SourceTimeline, examined: Fraction) -> Fraction:
    """The probed rate if the decoded frames agree with it up to rounded timestamps; else their own average: some may
    not have been decoded, or may lack timestamps.
    """
    count = len(timeline.pts)
    if abs(count / examined - timeline.duration_seconds) <= 2 * timeline.time_base:
        return examined
    return count / timeline.duration_seconds


def _discarded_frames(used: UsedFrames, scan: FrameScan, *, frames_before: int) -> list[int]:
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


def _keyframe_cuts(used: UsedFrames, scan: FrameScan) -> list[int]:
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


def _make_segments(
    cuts: Sequence[int],
    *,
    used: UsedFrames,
    scan: FrameScan,
    timeline: OutputTimeline,
    seeks_by_pts: bool,
    frames_before: int,
    discarded: Sequence[int],
) -> list[SegmentPlan]:
    """`frames_before`: how many frames before its first a segment must decode; `discarded`: see `cut_segments`."""
    pts = scan.timeline.pts
    key_times = [keyframe[0] for keyframe in scan.keyframes]
    segments = []
    shown = 0
    for index, (start, stop) in enumerate(pairwise(cuts)):
        first, last = used.numbers[start], used.numbers[stop - 1] + (used.phases[stop - 1] > 0)
        repeats, between = _segment_frames(used, start, stop, count=last - first + 1)
        frames = sum(used.repeats[start:stop])
        end_tick = used.starts[stop] if stop < len(used.starts) else used.end_tick
        seeks = _seek_points(key_times, pts[max(0, first - frames_before)], time_base=scan.timeline.time_base)
        segments.append(
            SegmentPlan(
                index=index,
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
            )
        )
        shown += frames
    return segments


def _segment_frames(
    used: UsedFrames, start: int, stop: int, *, count: int
) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """`repeats` and `between` of a segment of `count` source frames."""
    repeats = [0] * count
    between: list[list[int]] = [[] for _ in range(count)]
    for position in range(start, stop):
        number = used.numbers[position] - used.numbers[start]
        if used.phases[position]:
            between[number].append(used.phases[position])
        else:
            repeats[number] = used.repeats[position]
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
