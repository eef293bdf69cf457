"""What takes the networks' place: ffmpeg's own scaler, as fast as it goes. The files are real ones."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import structlog

from app.platform.errors import FfmpegCancelled, FfmpegError
from app.platform.media.ffmpeg import FfmpegRunner, Stream

THUMBNAIL_SIDE = 640
JPEG_QUALITY = 4
# The frame a tenth into the video.
THUMBNAIL_PART = 10
FAST_ENCODER = {
    "c:v": "libx264",
    "preset": "ultrafast",
    "crf": 28,
    "pix_fmt": "yuv420p",
    "movflags": "+faststart",
    "f": "mp4",
}

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class OutputShape:
    """What the output must measure. `target_fps` is None for the input's own timestamps."""

    width: int
    height: int
    frames: int
    target_fps: Fraction | None


def scale_video(
    runner: FfmpegRunner,
    source: Path,
    destination: Path,
    *,
    shape: OutputShape,
    cancelled: Callable[[], bool],
) -> None:
    """Enlarge the video with its sound. Sound that cannot be read is left out. Raises FfmpegError."""
    try:
        runner.run(
            _command(runner, source, destination, shape, with_sound=True),
            purpose="enlarging the video",
            cancelled=cancelled,
        )
    except FfmpegCancelled:
        raise
    except FfmpegError as error:
        log.warning("mock_sound_left_out", detail=error.detail)
        runner.run(
            _command(runner, source, destination, shape, with_sound=False),
            purpose="enlarging the video",
            cancelled=cancelled,
        )


def take_thumbnail(
    runner: FfmpegRunner, video: Path, destination: Path, *, shape: OutputShape, cancelled: Callable[[], bool]
) -> None:
    """A small JPEG of a frame near the video's beginning. Raises FfmpegError."""
    take_picture(
        runner,
        video,
        destination,
        frame=shape.frames // THUMBNAIL_PART,
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
    """One frame of the video through the filters, the first when there is none so late. Raises FfmpegError."""
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
    raise FfmpegError(f"The video program failed while {purpose}: there is no picture.")


def _command(
    runner: FfmpegRunner, source: Path, destination: Path, shape: OutputShape, *, with_sound: bool
) -> Stream:
    filters = [f"scale={shape.width}:{shape.height}:flags=fast_bilinear", "setsar=1"]
    options: dict[str, Any] = {**FAST_ENCODER, "fps_mode": "passthrough"}
    if shape.target_fps is None:
        # The input's ticks: in the encoder's own, frames of a varying rate would fall together.
        options["enc_time_base"] = "-1"
    else:
        filters = [f"fps={shape.target_fps}", "tpad=stop=-1:stop_mode=clone", *filters]
        options["frames:v"] = shape.frames
    read = runner.input(source)
    # A file without sound has none to map.
    streams = [read["V:0"], read["a?"]] if with_sound else [read["V:0"]]
    if with_sound:
        options["c:a"] = "aac"
    return runner.output(*streams, destination, vf=",".join(filters), **options)
