"""Whether a video with an alpha channel uses it: animations and many exports have one that is opaque throughout."""

from collections.abc import Callable
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
from app.platform.media.ffmpeg import FfmpegRunner

log = structlog.get_logger(__name__)

# Of an opaque frame, 100 percent of the negated alpha is black, rounded down to whole ones; the first frame of which
# less is, is let through. For ffmpeg, equal values are less.
FIRST_TRANSPARENT = (
    "alphaextract,format=gray,negate,blackframe=amount=0:threshold=1,"
    "metadata=mode=select:key=lavfi.blackframe.pblack:value=99.5:function=less"
)
# For one frame's line after the lines about the stream.
LIMIT_BYTES = 4096


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
