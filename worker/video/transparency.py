"""Whether a video is transparent, and whether its output is: which pixel format and which decoder show it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import ffmpeg
import structlog

from app.platform.errors import (
    Canceled,
    FfmpegCancelled,
    FfmpegError,
    FfmpegKilled,
    FfmpegMissing,
    FfmpegTimeout,
)
from app.platform.media.codecs import OutputFormat, formats_with_alpha
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.pixel_formats import read_pix_fmt
from app.platform.media.probe import VideoStream

log = structlog.get_logger(__name__)

ALPHA_WARNING = (
    f"The video is partly transparent; the output is opaque. Transparency is kept by {formats_with_alpha()}."
)
LAYER_WARNING = (
    "The video is partly transparent; the output is opaque, because this server's ffmpeg lacks the decoders of libvpx, "
    "which alone read transparency of VP8 and VP9."
)
# Of codecs with transparency in a separate layer, the decoder that joins the two. ffmpeg's own decoders ignore it.
LAYER_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
# The one that such a decoder makes of the pixel format of the colours.
LAYER_PIX_FMTS = {"yuv420p": "yuva420p"}
# Decoders and pixel formats that have an alpha channel for every video, mostly an opaque one.
ALWAYS_WITH_ALPHA = frozenset({"gif", "pal8"})
# Of an opaque frame, 100 percent of the negated alpha is black, rounded down to whole ones; the first frame of which
# less is, is let through. For ffmpeg, equal values are less.
FIRST_TRANSPARENT = (
    "alphaextract,format=gray,negate,blackframe=amount=0:threshold=1,"
    "metadata=mode=select:key=lavfi.blackframe.pblack:value=99.5:function=less"
)
# For one frame's line after the lines about the stream.
LIMIT_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class Transparency:
    """`video`: the stream as it is decoded. `is_kept`: the output has alpha. `decoder`: instead of ffmpeg's usual one.

    `may_be_lost`: alpha is there and not kept; only decoding shows whether it is opaque, unless there is a `warning`.
    """

    video: VideoStream
    is_kept: bool = False
    decoder: str | None = None
    may_be_lost: bool = False
    warning: str | None = None


def plan_transparency(
    runner: FfmpegRunner,
    path: Path,
    video: VideoStream,
    *,
    form: OutputFormat,
    has_layer: bool,
    cancelled: Callable[[], bool],
) -> Transparency:
    """Decide whether the output is transparent: if the input has alpha, and the output's codec and container hold it.

    Formats that always have alpha must be transparent somewhere. `has_layer`: see FirstFrames.has_alpha_layer.
    Raises PermanentError for unsupported pixel formats, and as `is_transparent` does.
    """
    has_channel = read_pix_fmt(video.pix_fmt)[2]
    if not has_channel and has_layer:
        return _of_layer(runner, video, is_held=form.holds_alpha)
    if not has_channel:
        return Transparency(video=video)
    if form.holds_alpha and ALWAYS_WITH_ALPHA.isdisjoint((video.codec, video.pix_fmt)):
        return Transparency(video=video, is_kept=True)
    if form.holds_alpha:
        is_kept = is_transparent(runner, path, stream_index=video.index, cancelled=cancelled)
        return Transparency(video=video, is_kept=is_kept)
    return Transparency(video=video, may_be_lost=True)


def _of_layer(runner: FfmpegRunner, video: VideoStream, *, is_held: bool) -> Transparency:
    decoder, pix_fmt = LAYER_DECODERS.get(video.codec), LAYER_PIX_FMTS.get(video.pix_fmt)
    if not is_held or decoder is None or pix_fmt is None:
        return Transparency(video=video, warning=ALPHA_WARNING)
    if decoder not in runner.components("decoders"):
        return Transparency(video=video, warning=LAYER_WARNING)
    return Transparency(video=replace(video, pix_fmt=pix_fmt), is_kept=True, decoder=decoder)


def is_transparent(
    runner: FfmpegRunner, path: Path, *, stream_index: int, cancelled: Callable[[], bool]
) -> bool:
    """Whether any pixel of the stream, which has an alpha channel, is not opaque. Decodes up to the first that is not.

    True for a video that cannot be decoded to its end. Raises Canceled once `cancelled` returns True, FfmpegMissing,
    FfmpegKilled and FfmpegTimeout.
    """
    video = runner.input(path)[str(stream_index)]
    stream = ffmpeg.output(
        video,
        "pipe:1",
        f="framecrc",
        vf=FIRST_TRANSPARENT,
        vcodec="rawvideo",
        fps_mode="passthrough",
        **{"frames:v": 1},
    )
    try:
        done = runner.run(
            stream, purpose="reading the video", cancelled=cancelled, stdout_limit_bytes=LIMIT_BYTES
        )
    except FfmpegCancelled as error:
        raise Canceled() from error
    except (FfmpegTimeout, FfmpegKilled, FfmpegMissing):
        raise
    except FfmpegError as error:
        log.warning("alpha_unreadable", detail=error.detail)
        return True
    return any(not line.startswith(b"#") for line in done.stdout.splitlines())
