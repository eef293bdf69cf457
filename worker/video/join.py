"""Joins segments by stream copy with exact timestamps, the end of the last frame included.

The concat demuxer offsets each segment by the sum of the durations before it, in microseconds. Durations are therefore
given as differences of rounded sums, so that errors do not accumulate: each start is off by at most half a microsecond,
which disappears in ticks of a microsecond or more. For finer ticks the `setts` bitstream filter adds the remainder, per
segment.

The same filter sets what the MP4 muxer cannot know: decoding times at the start, and the duration of the last frame.
MP4 states a track's duration twice: in the edit list (the largest pts plus duration) and for the media (the decoding
times, up to the last packet's duration). Players use the shorter one, so both must equal the video's.

Segments in Matroska (`segment_container`) count ticks as thousandths of a second. Their times become those of the
finished file when they are joined.
"""

import os
from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate, pairwise
from pathlib import Path

from app.platform.errors import PermanentError
from app.platform.media.ffmpeg import FfmpegRunner, Stream
from app.platform.progress import current_progress
from worker.video.filter_expressions import expression_tree
from worker.video.mp4_boxes import read_video_coding
from worker.video.plan import RenderPlan, SegmentPlan
from worker.video.timeline import MICROSECONDS
from worker.video.timestamp_check import WrittenVideo, read_back

LIST_SUFFIX = ".ffconcat"


def concat_list(names: Sequence[str], segments: Sequence[SegmentPlan], *, timescale: int) -> str:
    """An ffconcat script that concatenates the files."""
    lines = ["ffconcat version 1.0"]
    starts = _starts_microseconds(segments, timescale)
    for name, (start, end) in zip(names, pairwise(starts), strict=True):
        seconds, rest = divmod(end - start, MICROSECONDS)
        lines += [f"file {name}", f"duration {seconds}.{rest:06d}"]
    return "\n".join(lines) + "\n"


def write_concat_list(
    directory: Path, files: Sequence[Path], segments: Sequence[SegmentPlan], *, timescale: int
) -> Path:
    """Write the script that concatenates the files, and link them beside it, where ffmpeg looks for them."""
    names = [f"{number}{file.suffix}" for number, file in enumerate(files)]
    for name, file in zip(names, files, strict=True):
        try:
            os.link(file, directory / name)
        except OSError:  # another file system, or one without hard links
            (directory / name).symlink_to(file.resolve())
    path = directory / f"segments{LIST_SUFFIX}"
    path.write_text(concat_list(names, segments, timescale=timescale), encoding="ascii")
    return path


def concat_stream(runner: FfmpegRunner, concat: Path, *, render: RenderPlan) -> Stream:
    """The video of the files that the script names."""
    # MP4 describes VP9's pixel format, which only its frames say.
    decoder = {"decoder": "vp9"} if render.codec == "vp9" and render.segment_file.is_iso else {}
    return runner.concat_input(concat, auto_convert=0, copyts=None, **decoder)["v:0"]


def timestamp_filter(
    render: RenderPlan, segments: Sequence[SegmentPlan], *, first: WrittenVideo, last: WrittenVideo
) -> str:
    """The setts bitstream filter for the joined packets. `first`, `last`: the first and the last segment's file."""
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
        # Expressions use timestamps as the demuxer delivers them.
        duration = f"if(eq(PTS{shift}\\,{greatest_pts})\\,{render.total_ticks - greatest_pts}\\,{duration})"
    return f"setts=pts=PTS{shift}{offset}:dts={_with_shift(dts, shift)}{offset}:duration={duration}"


def written_timestamps(render: RenderPlan) -> str:
    """What follows the filter for timestamps where files count ticks in the finished file's: brings them to those."""
    if render.segment_file.is_iso:
        return ""
    scale, ticks = 2 * render.written_timescale, render.timescale
    return ",setts=" + ":".join(
        f"{name}=floor(({scale}*{name.upper()}+{ticks})/{2 * ticks})" for name in ("pts", "dts")
    )


def written_duration(render: RenderPlan, segments: Sequence[SegmentPlan], *, last: WrittenVideo) -> str:
    """The setts bitstream filter for the duration of the packet shown last, which reading the joined file may not give.
    `last`: the last segment's file.

    Files that are not ISO's do not hold it. Of ISO's, ffmpeg 5 takes decoding times, less the video's offset from
    the file's start. The filter runs in the ticks of the finished file (ffmpeg 5) or in those of the joined one.
    """
    latest = max(range(len(last.pts)), key=last.pts.__getitem__)
    *_, shown_last = segments[-1].output_ticks()
    exact = [
        render.offset_ticks + tick for tick in (segments[-1].start_tick + shown_last, render.total_ticks)
    ]
    written = [render.written_tick(tick) for tick in exact]
    duration = "DURATION"
    for shown, end in (exact, written):
        duration = f"if(eq(PTS\\,{shown})\\,{end - shown}\\,{duration})"
    number = render.frame_count - len(last.pts) + latest
    return f"setts=pts=PTS:dts=DTS:duration=if(eq(N\\,{number})\\,{duration}\\,DURATION)"


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

    `held_back`: packets decoded before the first frame is shown, at most `natural_delay` ticks before it.

    With `delay` ticks between decoding the first packet and showing the first frame, the media lasts
    `last_dts + duration + delay`, which must be `total_ticks`; and `last_pts + duration` must not exceed `total_ticks`,
    or the edit list becomes too long (nor be less, if no other packet is shown later). If the encoder's delay does not
    meet both, the least delay that does replaces it.
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
    """An expression to add to timestamps so that each segment starts as planned; empty if none is off."""
    starts = _starts_microseconds(segments, render.segment_timescale)
    packets = [0, *accumulate(segment.output_frames for segment in segments)]
    leaves: list[tuple[int, str]] = []
    for segment, microseconds, packet in zip(segments, starts, packets, strict=False):
        error = segment.start_tick - _to_ticks(microseconds, render.segment_timescale)
        if not leaves or leaves[-1][1] != str(error):
            leaves.append((packet, str(error)))
    return "" if leaves == [(0, "0")] else f"+{expression_tree(leaves)}"


def _starts_microseconds(segments: Sequence[SegmentPlan], timescale: int) -> list[int]:
    """The start of each segment and the end of the last, rounded to microseconds."""
    ticks = [
        *(segment.start_tick for segment in segments),
        segments[-1].start_tick + segments[-1].duration_ticks,
    ]
    return [round(Fraction(tick * MICROSECONDS, timescale)) for tick in ticks]


def _to_ticks(microseconds: int, timescale: int) -> int:
    """As ffmpeg rescales: rounded to the nearest, halves away from zero."""
    return (2 * microseconds * timescale + MICROSECONDS) // (2 * MICROSECONDS)


def check_plan(render: RenderPlan, segments: Sequence[SegmentPlan], segment_files: Sequence[Path]) -> None:
    """Raises PermanentError if segments and files are not those of the plan."""
    ends = [segment.start_tick + segment.duration_ticks for segment in segments]
    starts = [segment.start_tick for segment in segments]
    whole = (
        len(segments) == len(segment_files) == render.segment_count
        and [segment.index for segment in segments] == list(range(len(segments)))
        and [0, *ends] == [*starts, render.total_ticks]
        and sum(segment.output_frames for segment in segments) == render.frame_count
    )
    if not whole:
        raise PermanentError(
            "The parts of this video do not add up to the whole.",
            detail=f"{len(segments)} segments, {len(segment_files)} files, {render.segment_count} planned",
        )


def check_alike(render: RenderPlan, segment_files: Sequence[Path]) -> None:
    """Raises PermanentError if the files were not encoded alike. Frames in Matroska describe themselves."""
    if not render.segment_file.is_iso:
        return
    before = None
    for path in segment_files:
        coding = read_video_coding(path)
        if before not in (None, coding):
            raise PermanentError(
                "The parts of this video were encoded by different versions of ffmpeg and cannot be joined. Use the "
                "same version on all workers, and try again.",
                detail=f"{before} {coding}",
            )
        before = coding
        current_progress().beat()


def outer_files(runner: FfmpegRunner, segment_files: Sequence[Path]) -> tuple[WrittenVideo, WrittenVideo]:
    """The first and the last file."""
    first = read_back(runner, segment_files[0])
    return first, first if len(segment_files) == 1 else read_back(runner, segment_files[-1])
