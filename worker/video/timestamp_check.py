"""Reads back the timestamps of files that ffmpeg wrote, and compares them with the plan."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from app.platform.errors import FfmpegError, TransientError
from app.platform.media.ffmpeg import FfmpegRunner
from worker.inference.frames import FrameFormat
from worker.video.plan import RenderPlan, SegmentPlan

STREAM_FIELDS = "width,height,time_base,start_pts,duration_ts"


@dataclass(frozen=True, kw_only=True)
class WrittenVideo:
    """The video stream of a written file. Times are in ticks of `time_base`, packets in decoding order.

    `duration`: the stream's, as a player reads it.
    """

    time_base: Fraction
    width: int
    height: int
    start: int
    duration: int
    pts: Sequence[int]
    dts: Sequence[int]


def runner_for_output(runner: FfmpegRunner, target: FrameFormat) -> FfmpegRunner:
    """The runner for files of our own, whose frames may be larger than those of users."""
    pixels = max(runner.limits.max_pixels, target.width * target.height)
    return runner.under(replace(runner.limits, max_pixels=pixels))


def read_back(runner: FfmpegRunner, path: Path) -> WrittenVideo:
    """Demux the file's video. Raises FfmpegError, also if there is no video stream."""
    pts: list[int] = []
    dts: list[int] = []
    stream: dict[str, str] = {}
    arguments = ["-select_streams", "v:0", "-of", "compact"]
    for line in runner.scan_lines(
        path, *arguments, "-show_entries", f"packet=pts,dts:stream={STREAM_FIELDS}"
    ):
        section, *words = line.split("|")
        fields = dict(word.partition("=")[::2] for word in words)
        if section == "packet":
            pts.append(int(fields["pts"]))
            dts.append(int(fields["dts"]))
        elif section == "stream":
            stream = fields
    if not stream:
        raise FfmpegError("The written file contains no video.", detail=str(path))
    numerator, denominator = stream["time_base"].split("/")
    return WrittenVideo(
        time_base=Fraction(int(numerator), int(denominator)),
        width=int(stream["width"]),
        height=int(stream["height"]),
        start=int(stream["start_pts"]),
        duration=int(stream["duration_ts"]),
        pts=pts,
        dts=dts,
    )


def deviation(
    written: WrittenVideo, *, target: FrameFormat, timescale: int, ticks: Sequence[int]
) -> str | None:
    """The first difference between a written video and its plan, for the log; None if there is none."""
    if (written.width, written.height) != (target.width, target.height):
        return f"size {written.width}x{written.height}, planned {target.width}x{target.height}"
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
            if decoded > shown
        ),
        None,
    )
    if late is not None:
        return f"packet {late} is decoded at {written.dts[late]}, after it is shown at {written.pts[late]}"
    return None


def check_output(
    runner: FfmpegRunner, part: Path, *, render: RenderPlan, segments: Sequence[SegmentPlan]
) -> None:
    """Raises TransientError if the joined file's timestamps or its duration are not as planned."""
    written = read_back(runner, part)
    ticks = [
        render.offset_ticks + segment.start_tick + tick
        for segment in segments
        for tick in segment.output_ticks()
    ]
    fault = deviation(written, target=render.target, timescale=render.timescale, ticks=ticks)
    if fault is None and written.duration != render.total_ticks:
        fault = f"it lasts {written.duration} ticks, planned {render.total_ticks}"
    if fault is not None:
        raise TransientError("The joined video differs from the plan.", detail=fault)
