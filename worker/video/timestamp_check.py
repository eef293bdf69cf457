"""Reads back the timestamps and the transparency of files that ffmpeg wrote, and compares them with the plan."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from app.platform.errors import FfmpegError, TransientError
from app.platform.media.ffmpeg import FfmpegRunner
from worker.inference.frames import FrameFormat
from worker.video.plan import RenderPlan, SegmentPlan

ENTRIES = (
    "packet=stream_index,pts,dts:packet_side_data=side_data_type"
    ":stream=codec_type,codec_tag_string,width,height,pix_fmt,time_base,start_pts,duration_ts"
    ":stream_tags=DURATION,alpha_mode"
)
# What Matroska has beside a frame: alpha of VP9. Newer versions of ffprobe put the kind before the field too.
BESIDE = "side_data_type=Matroska BlockAdditional"


@dataclass(frozen=True, kw_only=True)
class WrittenVideo:
    """The video stream of a written file. Times are in ticks of `time_base`, packets in decoding order.

    `duration`: the stream's, as a player reads it, in Matroska from its tag. `has_alpha`: every frame has.
    """

    time_base: Fraction
    width: int
    height: int
    start: int
    duration: int
    pts: Sequence[int]
    dts: Sequence[int]
    has_alpha: bool = False


@dataclass(frozen=True, kw_only=True)
class WrittenFile:
    """A written file: its video, if its first track is one, and of each track ffprobe's `codec_type` and
    `codec_tag_string`."""

    video: WrittenVideo | None
    tracks: Sequence[Mapping[str, str]]


def runner_for_output(runner: FfmpegRunner, target: FrameFormat) -> FfmpegRunner:
    """The runner for files of our own, whose frames may be larger than those of users."""
    pixels = max(runner.limits.max_pixels, target.width * target.height)
    return runner.under(replace(runner.limits, max_pixels=pixels))


def read_back(runner: FfmpegRunner, path: Path) -> WrittenVideo:
    """Demux the file's first track. Raises FfmpegError, also if that is no video."""
    video = read_file_back(runner, path).video
    if video is None:
        raise FfmpegError("The written file contains no video.", detail=str(path))
    return video


def read_file_back(runner: FfmpegRunner, path: Path) -> WrittenFile:
    """Demux all tracks. Raises FfmpegError."""
    pts: list[int] = []
    dts: list[int] = []
    streams: list[dict[str, str]] = []
    layers = 0
    for line in runner.scan_lines(path, "-of", "compact", "-show_entries", ENTRIES):
        section, *words = line.split("|")
        if section == "packet" and words[0] != "stream_index=0":
            continue
        fields = dict(word.partition("=")[::2] for word in words)
        if section == "packet":
            pts.append(int(fields["pts"]))
            layers += any(word.endswith(BESIDE) for word in words)
            # Matroska states none, and ffmpeg guesses them.
            dts.append(int(fields["dts"]) if fields["dts"] != "N/A" else pts[-1])
        elif section == "stream":
            streams.append(fields)
    is_video = bool(streams) and streams[0]["codec_type"] == "video"
    video = None
    if is_video:
        is_layered = streams[0].get("tag:ALPHA_MODE", streams[0].get("tag:alpha_mode")) == "1"
        has_alpha = layers == len(pts) if is_layered else streams[0].get("pix_fmt", "").startswith("yuva")
        video = _video(streams[0], pts, dts, has_alpha=has_alpha)
    return WrittenFile(video=video, tracks=streams)


def _video(
    stream: Mapping[str, str], pts: Sequence[int], dts: Sequence[int], *, has_alpha: bool
) -> WrittenVideo:
    numerator, denominator = stream["time_base"].split("/")
    time_base = Fraction(int(numerator), int(denominator))
    return WrittenVideo(
        time_base=time_base,
        width=int(stream["width"]),
        height=int(stream["height"]),
        # Of a stream of fewer frames than its decoder holds back, ffprobe tells none.
        start=min(pts, default=0) if stream["start_pts"] == "N/A" else int(stream["start_pts"]),
        duration=_duration(stream, time_base),
        pts=pts,
        dts=dts,
        has_alpha=has_alpha,
    )


def _duration(stream: Mapping[str, str], time_base: Fraction) -> int:
    """In ticks. Matroska's tag counts from 0 and has nanoseconds: `00:00:01.501000000`."""
    if stream["duration_ts"].isdecimal():
        return int(stream["duration_ts"])
    hours, minutes, seconds = stream.get("tag:DURATION", "0:0:0").split(":")
    return round((3600 * int(hours) + 60 * int(minutes) + Fraction(seconds)) / time_base)


def deviation(
    written: WrittenVideo,
    *,
    target: FrameFormat,
    timescale: int,
    ticks: Sequence[int],
    has_decoding_times: bool = True,
) -> str | None:
    """The first difference between a written video and its plan, for the log; None if there is none."""
    if (written.width, written.height) != (target.width, target.height):
        return f"size {written.width}x{written.height}, planned {target.width}x{target.height}"
    if target.has_alpha and not written.has_alpha:
        return "not every frame has alpha"
    if written.time_base != Fraction(1, timescale):
        return f"time base {written.time_base}, planned 1/{timescale}"
    if len(written.pts) != len(ticks):
        return f"{len(written.pts)} frames, planned {len(ticks)}"
    for number, (got, planned) in enumerate(zip(sorted(written.pts), ticks, strict=True)):
        if got != planned:
            return f"frame {number} at tick {got}, planned {planned}"
    late = next(
        (
            at
            for at, (shown, decoded) in enumerate(zip(written.pts, written.dts, strict=True))
            if decoded > shown and has_decoding_times
        ),
        None,
    )
    if late is not None:
        return f"packet {late} is decoded at {written.dts[late]}, after it is shown at {written.pts[late]}"
    return None


def check_segment(
    runner: FfmpegRunner, part: Path, *, render: RenderPlan, segment: SegmentPlan
) -> WrittenVideo:
    """Returns what was written. Raises TransientError if its timestamps are not as planned."""
    written = read_back(runner_for_output(runner, render.target), part)
    ticks = list(segment.output_ticks())
    fault = deviation(written, target=render.target, timescale=render.segment_timescale, ticks=ticks)
    if fault is not None:
        raise TransientError("A part of the video was not encoded as planned.", detail=fault)
    return written


def check_output(written: WrittenVideo, *, render: RenderPlan, segments: Sequence[SegmentPlan]) -> None:
    """Raises TransientError if the joined file's timestamps or its duration are not as planned."""
    ticks = [
        render.written_tick(render.offset_ticks + segment.start_tick + tick)
        for segment in segments
        for tick in segment.output_ticks()
    ]
    is_exact = render.file.is_iso
    fault = deviation(
        written,
        target=render.target,
        timescale=render.written_timescale,
        ticks=ticks,
        has_decoding_times=is_exact,
    )
    lasts = render.total_ticks
    if not is_exact:
        lasts = render.written_tick(render.offset_ticks + render.total_ticks)
    # The last frame's time and its duration are rounded one by one.
    if fault is None and abs(written.duration - lasts) > (0 if is_exact else 1):
        fault = f"it lasts {written.duration} ticks, planned {lasts}"
    if fault is not None:
        raise TransientError("The joined video differs from the plan.", detail=fault)
