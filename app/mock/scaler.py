"""ffmpeg's scaler in place of the networks, with its fastest settings. The files are real."""

from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from app.platform.errors import FfmpegCancelled, FfmpegError
from app.platform.media.codecs import CODECS, OutputFormat
from app.platform.media.containers import VideoCodec
from app.platform.media.ffmpeg import FfmpegRunner, Stream
from app.platform.media.info import VideoProperties
from app.platform.media.time_range import TimeRange

THUMBNAIL_SIDE = 640
JPEG_QUALITY = 4
# The frame a tenth into the video.
THUMBNAIL_PART = 10
# Seconds a tick: a whole number of ticks is a frame at all usual rates, those over 1001 among them.
FINE_TIME_BASE = "1/360000"
FAST_ENCODERS: Mapping[VideoCodec, Mapping[str, Any]] = {
    "h264": {"preset": "ultrafast", "crf": 28, "pix_fmt": "yuv420p"},
    "hevc": {"preset": "ultrafast", "crf": 30, "pix_fmt": "yuv420p", "x265-params": "log-level=error"},
    "av1": {"preset": 12, "crf": 40, "pix_fmt": "yuv420p"},
    "prores": {"profile:v": "proxy", "pix_fmt": "yuv422p10le"},
    "ffv1": {"level": 3, "pix_fmt": "yuv420p"},
    "vp9": {"deadline": "realtime", "cpu-used": 8, "crf": 40, "b:v": 0, "pix_fmt": "yuv420p"},
}

log = structlog.get_logger(__name__)


def scale_video(
    runner: FfmpegRunner,
    source: Path,
    destination: Path,
    *,
    output: VideoProperties,
    part: TimeRange | None,
    target_fps: Fraction | None,
    form: OutputFormat,
    cancelled: Callable[[], bool],
) -> None:
    """Enlarges the video with its sound; sound that cannot be read is left out. Raises FfmpegError.

    `target_fps` is None for the input's own timestamps.
    """
    command = partial(_command, runner, source, destination, output, part, target_fps, form)
    run = partial(runner.run, purpose="enlarging the video", cancelled=cancelled)
    try:
        run(command(with_sound=True))
    except FfmpegCancelled:
        raise
    except FfmpegError as error:
        log.warning("mock_sound_left_out", detail=error.detail)
        run(command(with_sound=False))


def take_thumbnail(
    runner: FfmpegRunner, video: Path, destination: Path, *, frames: int, cancelled: Callable[[], bool]
) -> None:
    """Makes a small JPEG of a frame near the beginning of a video of so many `frames`. Raises FfmpegError."""
    take_picture(
        runner,
        video,
        destination,
        frame=frames // THUMBNAIL_PART,
        filters=f"scale=w='min({THUMBNAIL_SIDE},iw)':h='min({THUMBNAIL_SIDE},ih)'"
        ":force_original_aspect_ratio=decrease:out_range=pc,format=yuvj420p",
        purpose="making the thumbnail",
        cancelled=cancelled,
        options={"vcodec": "mjpeg", "f": "mjpeg", "color_range": "pc", "q:v": JPEG_QUALITY},
    )


def take_picture(
    runner: FfmpegRunner,
    video: Path,
    destination: Path,
    *,
    frame: int,
    at_seconds: Fraction = Fraction(0),
    filters: str,
    purpose: str,
    cancelled: Callable[[], bool],
    options: dict[str, Any],
) -> None:
    """Filters the first frame at or after `frame` and `at_seconds`, or the first of all when the video is shorter.

    Raises FfmpegError.
    """
    for chosen in (f"gte(n\\,{frame})*gte(t+0.0001\\,{float(at_seconds):.6f})", "1"):
        stream = runner.output(
            runner.input(video)["V:0"],
            destination,
            vf=f"select={chosen},{filters}",
            fps_mode="passthrough",
            **{**options, "frames:v": 1},
        )
        runner.run(stream, purpose=purpose, cancelled=cancelled)
        if destination.stat().st_size:
            return
    raise FfmpegError(f"The video program failed while {purpose}: it made no picture.")


def _command(
    runner: FfmpegRunner,
    source: Path,
    destination: Path,
    output: VideoProperties,
    part: TimeRange | None,
    target_fps: Fraction | None,
    form: OutputFormat,
    *,
    with_sound: bool,
) -> Stream:
    filters = [f"scale={output.width}:{output.height}:flags=fast_bilinear", "setsar=1"]
    codec, file = form.chosen_codec or "h264", form.file
    options: dict[str, Any] = {
        "c:v": CODECS[codec].encoder,
        **FAST_ENCODERS[codec],
        **file.muxer_options,
        **file.finished_options,
        "fps_mode": "passthrough",
    }
    if target_fps is None:
        # In the encoder's own, frames of a variable rate would coincide; ffmpeg's word for the input's has changed.
        options["enc_time_base"] = FINE_TIME_BASE
    else:
        filters = [f"fps={target_fps}", "tpad=stop=-1:stop_mode=clone", *filters]
        options["frames:v"] = output.frames
    read = runner.input(source, **({} if part is None else _bounds(part)))
    # A file without sound has none to map.
    streams = [read["V:0"], read["a?"]] if with_sound else [read["V:0"]]
    if with_sound:
        options["c:a"] = file.audio_encoder
    return runner.output(*streams, destination, vf=",".join(filters), **options)


def _bounds(part: TimeRange) -> dict[str, str]:
    ends = {} if part.end is None else {"to": f"{float(part.end):.6f}"}
    return {"ss": f"{float(part.start):.6f}", **ends}
