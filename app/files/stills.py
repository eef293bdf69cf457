"""One frame of a file as a small picture: to look for a moment in a video that the caller cannot play.

It need not be exact to the bit, as a preview's frame is: it is found by seeking, reduced, and written as JPEG.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from math import floor

import ffmpeg

from app.files.local_copies import LocalCopy
from app.files.tables import File
from app.platform.byte_sizes import MIB
from app.platform.errors import (
    FfmpegCancelled,
    FfmpegError,
    FfmpegKilled,
    FfmpegMissing,
    FfmpegTimeout,
    InvalidRequest,
    LimitExceeded,
)
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.probe import moving_stream_index

LONGEST_SIDE = 960
JPEG_QUALITY = 5  # ffmpeg's qscale: 2 is the best, 31 the worst
# Of one picture's making, all attempts together; the processor time is of each.
WALL_SECONDS = 15.0
CPU_SECONDS = 20
THREADS = 2
MOST_BYTES = 64 * MIB
# Frames are looked for so far before the moment: at first a few, then as many as a slide show may need.
NEAR, FAR = Fraction(1, 4), Fraction(10)
# Formats whose index leads to a key frame. In others decoding starts somewhere, and yields nothing until there is one.
INDEXED = frozenset({"video/mp4", "video/quicktime", "video/x-matroska", "video/webm", "video/x-msvideo"})
RUN_UP = Fraction(3)
MICROSECONDS = 1_000_000
JPEG_START = b"\xff\xd8\xff"

HDR = frozenset({"smpte2084", "arib-std-b67"})
# As previews are: white at 203 cd/m2 (ITU-R BT.2408), highlights up to five times as bright.
TONE_MAPPING = (
    "setparams=color_primaries=bt2020:color_trc={transfer}:colorspace=bt2020nc,"
    "zscale=t=linear:npl=203,format=gbrpf32le,zscale=p=bt709,tonemap=mobius:desat=0:peak=5,"
    "zscale=t=bt709:m=bt709:r=tv,format=yuv444p"
)
# Newer versions of ffmpeg refuse to scale frames with unusual tags.
UNTAGGED = "setparams=color_primaries=unknown:color_trc=unknown:colorspace=unknown"
# Pixels are made square by reducing one side, never by enlarging the other: a still has no more than its frame.
_WIDTH, _HEIGHT = "iw*min(1,sar)", "ih/max(1,sar)"
_SHARE = f"min(1,{LONGEST_SIDE}/max({_WIDTH},{_HEIGHT}))"
SQUARE_AND_SMALL = f"scale=w='max(1,round({_WIDTH}*{_SHARE}))':h='max(1,round({_HEIGHT}*{_SHARE}))',setsar=1"
JPEG_COLOURS = "scale=out_color_matrix=bt601:out_range=pc,format=yuvj420p"

NO_FRAME = "No frame at this moment can be decoded."
TOO_SLOW = "Decoding up to this moment takes too long: choose another one."


@dataclass(frozen=True, kw_only=True)
class _Attempt:
    """Decoding from `start` on, of which the frames from `first` until before `end` count; in microseconds of the
    file's clock."""

    start: int
    first: int
    end: int


def still_runner(runner: FfmpegRunner) -> FfmpegRunner:
    """The runner for one call of `make_still`, which `stop` ends."""
    limits = replace(
        runner.limits,
        wall_seconds=min(runner.limits.wall_seconds, WALL_SECONDS),
        cpu_seconds=CPU_SECONDS,
        threads=THREADS,
    )
    return runner.under(limits).within_one_limit()


def make_still(runner: FfmpegRunner, copy: LocalCopy, file: File, at_seconds: Fraction) -> bytes:
    """The last frame that begins by `at_seconds` after the video's first, as a JPEG of square pixels.

    Raises InvalidRequest if there is none, LimitExceeded if it takes too long, FfmpegCancelled after `runner.stop`.
    """
    moment = floor((at_seconds + (file.video_begins_at or 0)) * MICROSECONDS)
    try:
        if copy.video_index is None:
            copy.video_index = moving_stream_index(runner, copy.path)
        for attempt in _attempts(moment, is_indexed=file.content_type in INDEXED):
            picture = _last_picture(runner, copy, file.transfer, attempt)
            if picture:
                return picture
    except (FfmpegTimeout, FfmpegKilled) as error:
        raise LimitExceeded(TOO_SLOW, detail=error.detail) from error
    raise InvalidRequest(NO_FRAME)


def _attempts(moment: int, *, is_indexed: bool) -> Iterator[_Attempt]:
    """From the cheapest to the most reliable."""
    run_up = 0 if is_indexed else floor(RUN_UP * MICROSECONDS)
    # One microsecond more, so that rounding keeps the frame that begins at the moment.
    end = moment + 2
    for length in (floor(NEAR * MICROSECONDS), floor(FAR * MICROSECONDS)):
        first = max(0, moment - length)
        yield _Attempt(start=max(0, first - run_up), first=first, end=end)
    yield _Attempt(start=0, first=max(0, moment - floor(FAR * MICROSECONDS)), end=end)
    # Of a video that begins later than its file says.
    yield _Attempt(start=0, first=0, end=end + floor(FAR * MICROSECONDS))


def _last_picture(runner: FfmpegRunner, copy: LocalCopy, transfer: str | None, attempt: _Attempt) -> bytes:
    """The last frame of the attempt; empty if there is none.

    A frame that this ffmpeg cannot tone-map, or whose tags it refuses, is shown by its plain values.
    """
    ways = [TONE_MAPPING.format(transfer=transfer)] if transfer in HDR else []
    for way in (*ways, "null", UNTAGGED):
        try:
            return _decoded(runner, copy, way, attempt)
        except (FfmpegTimeout, FfmpegKilled, FfmpegMissing, FfmpegCancelled):
            raise
        except FfmpegError:
            continue
    return b""


def _decoded(runner: FfmpegRunner, copy: LocalCopy, colours: str, attempt: _Attempt) -> bytes:
    seek = {"ss": f"{attempt.start}us"} if attempt.start else {}
    # Damage is no failure: ffmpeg would report one if it cannot decode two thirds of the pictures.
    source = runner.input(copy.path, max_error_rate=1, **seek)
    first, end = (f"{moment - attempt.start}us" for moment in (attempt.first, attempt.end))
    chain = ",".join(
        (
            f"trim=start={first}:end={end}",
            "bwdif=deint=interlaced",
            SQUARE_AND_SMALL,
            colours,
            JPEG_COLOURS,
        )
    )
    options = {
        "f": "image2pipe",
        "vcodec": "mjpeg",
        "q:v": JPEG_QUALITY,
        "fps_mode": "passthrough",
        "vf": chain,
    }
    stream = ffmpeg.output(source[str(copy.video_index)], "pipe:1", color_range="pc", **options)
    done = runner.run(stream, purpose="reading a frame", stdout_limit_bytes=MOST_BYTES)
    last = done.stdout.rfind(JPEG_START)
    return done.stdout[last:] if last >= 0 else b""
