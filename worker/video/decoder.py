"""Decodes a segment's source frames: one ffmpeg that writes raw frames, exactly those that the plan lists.

The scan that makes the plan uses the same filter chain, so that a frame has the same checksum in both.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import ffmpeg
import numpy as np
from numpy.typing import NDArray

from app.platform.media.ffmpeg import FfmpegProcess, FfmpegRunner, Stream
from app.platform.media.h273 import UNSPECIFIED
from worker.inference.frames import FrameFormat
from worker.video.deinterlace import Deinterlacing
from worker.video.plan import RenderPlan, SegmentPlan
from worker.video.watchdog import Watchdog

MICROSECONDS = 1_000_000
# The most accurate conversion, for streams whose format or size changes.
SCALE_FLAGS = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
UNTAGGED_COLOURS = f"setparams=color_primaries={UNSPECIFIED}:color_trc={UNSPECIFIED}:colorspace={UNSPECIFIED}"


@dataclass(frozen=True, kw_only=True)
class DecodePoint:
    """Where decoding of a segment starts; at the file's start if `seek_ticks` is None.

    With `by_number`, frames are selected by number from the file's start instead of by timestamp.
    """

    seek_ticks: int | None
    by_number: bool

    def __post_init__(self) -> None:
        if self.by_number and self.seek_ticks is not None:
            raise ValueError("frames are numbered from the file's start")


class WrongFrame(Exception):
    """A decoded frame is not the one that the plan lists at `position`; `checksum` is None if there is no frame."""

    def __init__(self, position: int, checksum: int | None) -> None:
        super().__init__(f"frame {position} of the segment: checksum {checksum}")
        self.position = position
        self.checksum = checksum


def decode_points(render: RenderPlan, segment: SegmentPlan) -> list[DecodePoint]:
    """The decode points of a segment, from the cheapest to the most reliable."""
    if not render.seekable:
        return [DecodePoint(seek_ticks=None, by_number=True)]
    points = [DecodePoint(seek_ticks=ticks, by_number=False) for ticks in segment.seek_ticks]
    return [
        *points,
        DecodePoint(seek_ticks=None, by_number=False),
        DecodePoint(seek_ticks=None, by_number=True),
    ]


def discarded_frames(segment: SegmentPlan, point: DecodePoint) -> int:
    """How many source frames are decoded from the point on before the segment's first."""
    if segment.seek_ticks and point.seek_ticks == segment.seek_ticks[0]:
        return segment.discarded_frames
    # From the start of the file, or from a keyframe before the nearest.
    return segment.first_frame


def filter_chain(
    *,
    time_base: Fraction,
    source: FrameFormat,
    decoded_pix_fmts: Sequence[str],
    deinterlacing: Deinterlacing | None,
    expansion: str | None,
    trim: str | None = None,
    marks_interlaced: bool = False,
) -> str:
    """Filters from the decoder (after ffmpeg's own rotation, see `decoder_options`) to raw frames as `source` says.

    The scale filter, which leaves frames of the right size unchanged, is there for streams whose size changes. With
    `marks_interlaced`, timestamps are in half ticks, and odd for frames that are marked as interlaced.
    """
    # No filter here needs the colour tags, and newer versions of ffmpeg refuse to scale frames with unusual ones.
    chain = [UNTAGGED_COLOURS, f"settb={time_base.numerator}/{time_base.denominator}"]
    size = (source.width, source.height)
    if deinterlacing is not None:
        # Deinterlacing compares frames: they must be of one size before. Fields are scaled each by itself.
        width, height = size[::-1] if deinterlacing.rotation in (90, 270) else size
        chain.append(f"scale={width}:{height}:interl=-1:flags={SCALE_FLAGS}")
        chain += deinterlacing.filters(time_base)
    if marks_interlaced:
        chain += [f"settb={time_base.numerator}/{2 * time_base.denominator}", "setpts=PTS+INTERLACED"]
    if trim is not None:
        chain.append(f"trim={trim}")
    chain.append(f"scale={size[0]}:{size[1]}:flags={SCALE_FLAGS}")
    chain.append("format=" + "|".join(decoded_pix_fmts))
    if expansion is not None:
        chain.append(expansion)
    return ",".join(chain)


def decoder_options(deinterlacing: Deinterlacing | None, decoder: str | None = None) -> dict[str, object]:
    """Input options that the filter chain relies on: timestamps as in the file; deinterlacing precedes rotation; a
    `decoder` instead of ffmpeg's usual one.

    Damage is no failure: ffmpeg would report one if it cannot decode two thirds of the pictures.
    """
    options: dict[str, object] = {"copyts": None, "max_error_rate": 1}
    if decoder is not None:
        options["c:v"] = decoder
    if deinterlacing is not None:
        # Where the size changes ffmpeg would make the filters anew, and lose the frames that deinterlacing holds.
        options["reinit_filter"] = 0
        if deinterlacing.turns:
            options["noautorotate"] = None
    return options


def seek_options(seconds: Fraction) -> dict[str, object]:
    """Input options that start decoding at the keyframe with that timestamp."""
    return {"noaccurate_seek": None, "seek_timestamp": 1, "ss": seconds_up(seconds)}


def decoding_stream(
    runner: FfmpegRunner, path: Path, *, render: RenderPlan, segment: SegmentPlan, point: DecodePoint
) -> Stream:
    """The command that writes the segment's source frames to stdout."""
    if point.by_number:
        last = segment.first_frame + segment.source_frames
        trim = f"start_frame={segment.first_frame}:end_frame={last}"
    else:
        trim = f"start_pts={segment.first_pts}:end_pts={segment.last_pts + 1}"
    options = decoder_options(render.deinterlacing, render.decoder)
    if point.by_number and not render.is_turned:
        # Filters made anew where the size changes would count from 0 again; those that turn must be made anew.
        options["reinit_filter"] = 0
    if point.seek_ticks is not None:
        # The trim filter selects the frames: ffmpeg's accurate seek rounds.
        options |= seek_options(point.seek_ticks * render.source_time_base)
    source = runner.input(path, **options)
    chain = filter_chain(
        time_base=render.source_time_base,
        source=render.source,
        decoded_pix_fmts=render.decoded_pix_fmts,
        deinterlacing=render.deinterlacing,
        expansion=render.expansion,
        trim=trim,
    )
    return ffmpeg.output(
        source[str(render.stream_index)],
        "pipe:1",
        f="rawvideo",
        vcodec="rawvideo",
        vf=chain,
        fps_mode="passthrough",
    )


class FrameReader:
    """Reads a segment's source frames from a decoder and checks each against the plan.

    `verify` False: only their number is checked.
    """

    def __init__(self, process: FfmpegProcess, segment: SegmentPlan, *, verify: bool) -> None:
        self._process = process
        self._segment = segment
        self._verify = verify
        self._position = 0

    def read_into(self, buffer: NDArray[np.uint8]) -> int:
        """Fill `buffer` (1-D uint8 of one source frame) with the next frame; returns its repeat count, 0: not used.

        Raises WrongFrame, and what FfmpegProcess.wait raises.
        """
        position = self._position
        if not self._process.read_exactly_into(buffer.data):
            self._process.wait()
            raise WrongFrame(position, None)
        if self._verify:
            checksum = zlib.adler32(buffer.data, 0)
            if checksum != self._segment.checksums[position]:
                raise WrongFrame(position, checksum)
        self._position += 1
        return self._segment.repeats[position]

    def finish(self) -> None:
        """Raises WrongFrame if frames follow the last planned one, and what FfmpegProcess.wait raises."""
        if self._process.stdout.read(1):
            raise WrongFrame(self._position, None)
        self._process.wait()


def find_decode_point(
    runner: FfmpegRunner, path: Path, *, render: RenderPlan, segment: SegmentPlan, watchdog: Watchdog
) -> DecodePoint:
    """Try the decode points in turn; returns the first that delivers the planned frames.

    Checksums may differ although the frames are right: decoders differ between processors, and conceal damage
    differently from run to run. So two decode points that agree with each other suffice, and otherwise the right
    number of frames. Raises WrongFrame if not even the number is right.
    """
    seen: dict[tuple[int, int | None], DecodePoint] = {}
    points = decode_points(render, segment)
    for point in points:
        try:
            _read_through(runner, path, render, segment, watchdog, point=point, verify=True)
        except WrongFrame as wrong:
            found = (wrong.position, wrong.checksum)
            if wrong.checksum is not None and found in seen:
                return seen[found]
            seen[found] = point
        else:
            return point
    for point in reversed(points):
        try:
            _read_through(runner, path, render, segment, watchdog, point=point, verify=False)
        except WrongFrame:
            if point is points[0]:
                raise
        else:
            return point
    raise AssertionError("decode_points always includes the start of the file")


def _read_through(
    runner: FfmpegRunner,
    path: Path,
    render: RenderPlan,
    segment: SegmentPlan,
    watchdog: Watchdog,
    *,
    point: DecodePoint,
    verify: bool,
) -> None:
    stream = decoding_stream(runner, path, render=render, segment=segment, point=point)
    buffer = np.empty(render.source.frame_bytes, np.uint8)
    with runner.start(stream, purpose="reading the video", stdin=False, stdout=True) as process:
        reader = FrameReader(watchdog.own(process), segment, verify=verify)
        for _ in range(segment.source_frames):
            reader.read_into(buffer)
            watchdog.progress()
        reader.finish()


def seconds_up(seconds: Fraction) -> str:
    """Seconds for ffmpeg's options, rounded up: a seek to just before a keyframe would find the one before it."""
    microseconds = -(-seconds.numerator * MICROSECONDS // seconds.denominator)
    sign = "-" if microseconds < 0 else ""
    whole, rest = divmod(abs(microseconds), MICROSECONDS)
    return f"{sign}{whole}.{rest:06d}"
