"""Decodes a single frame of a video: the one that is shown at a given time; on request with the frames around it.

The decoder and its filters are those of a render, so the frame is the one that a render upscales. The packet list says
where decoding can start; only the frames that the wanted one depends on are decoded.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil, floor
from pathlib import Path
from typing import TypeVar

import ffmpeg
import numpy as np
import structlog
from numpy.typing import NDArray

from app.platform.errors import FfmpegError, FfmpegKilled, FfmpegMissing, FfmpegTimeout, PermanentError
from app.platform.media.ffmpeg import FfmpegRunner, Stream
from app.platform.media.limits import MediaLimits
from app.platform.media.picture_options import Deinterlace
from app.platform.media.probe import MediaInfo, probe_video
from worker.video.colour import ColourPlan, plan_colour
from worker.video.continuous_copy import continuous_source
from worker.video.decoder import decoder_options, filter_chain, seek_options
from worker.video.deinterlace import as_fields
from worker.video.encoder import choose_codec
from worker.video.frame_scan import EARLIER_SEEK_SECONDS
from worker.video.hdr_metadata import SourceMetadata, read_source_metadata
from worker.video.packet_list import Packets, read_packets
from worker.video.segmenter import seeks_by_pts
from worker.video.watchdog import Watchdog

# When the packet at the time yields no frame, earlier ones are tried this far back.
LOOK_BACK_SECONDS = 10
# For all attempts at one frame. Ten seconds of 4K between two keyframes take less on two busy cores, even twice.
LONGEST_DECODING_SECONDS = 30.0

NO_FRAME = "No frame at this moment can be decoded."
TOO_FAR = (
    "This moment is too far behind the last key frame: decoding up to it takes too long for a preview. Choose an "
    "earlier moment, or convert the video with a key frame every few seconds (ffmpeg's option -g 250)."
)

log = structlog.get_logger(__name__)

Frame = NDArray[np.uint8]
Result = TypeVar("Result")


@dataclass(frozen=True)
class FramesAround:
    """Consecutive frames and their timestamps in ticks; the one at `place` is wanted."""

    frames: Sequence[Frame]
    times: Sequence[int]
    place: int


@dataclass(frozen=True, kw_only=True)
class IndexedVideo:
    """A probed video with its packet list, from which any frame can be decoded."""

    path: Path
    info: MediaInfo
    colour: ColourPlan
    metadata: SourceMetadata
    packets: Packets

    @property
    def seeks_by_pts(self) -> bool:
        return seeks_by_pts(self.info.format_name)

    def ticks_at(self, at_seconds: Fraction) -> int:
        """`at_seconds` after the first frame, as a timestamp of the file in ticks."""
        start = self.info.video.start_pts + self.packets.late_ticks
        return start + floor(at_seconds / self.info.video.time_base)


def index_video(
    runner: FfmpegRunner,
    path: Path,
    *,
    scale: int,
    limits: MediaLimits,
    directory: Path | None = None,
    deinterlace: Deinterlace = Deinterlace.AUTO,
    cancelled: Callable[[], bool],
) -> IndexedVideo:
    """Probe the file and list its packets; if its timestamps start again, and there is a `directory`, those of a copy.

    Raises Canceled once `cancelled` returns True, and what the functions raise that it calls.
    """
    info = probe_video(runner, path, limits=limits)
    if directory is not None:
        path, info, _ = continuous_source(runner, path, info, directory=directory, cancelled=cancelled)
    colour = plan_colour(info.video, scale=scale)
    codec = choose_codec(colour.target)
    metadata = read_source_metadata(runner, path, info, codec=codec, deinterlace=deinterlace)
    nominal = round(1 / (info.video.frame_rate * info.video.time_base))
    packets = read_packets(runner, path, info.video, cancelled, listing=info.listing)
    packets = packets.as_decoded(metadata.first_pts, nominal=max(1, nominal))
    if metadata.deinterlacing is not None and metadata.deinterlacing.by_field:
        info, packets = as_fields(info), packets.as_fields()
    # It is kept as long as previews of the file are asked for.
    info = replace(info, listing=None)
    return IndexedVideo(path=path, info=info, colour=colour, metadata=metadata, packets=packets)


def read_frame(
    runner: FfmpegRunner,
    video: IndexedVideo,
    at_seconds: Fraction,
    *,
    cancelled: Callable[[], bool],
    stall_seconds: float,
) -> Frame:
    """The last frame whose timestamp is not after `at_seconds` (0 is the first frame), as `video.colour.source` says.

    Raises PermanentError if there is none or decoding takes longer than LONGEST_DECODING_SECONDS, PipelineStalled if
    nothing was decoded for `stall_seconds`, Canceled once `cancelled` returns True.
    """

    def read(bounded: FfmpegRunner) -> Frame:
        reading = _Reading(bounded, video, cancelled, stall_seconds)
        return _read_frame(video, reading, at_seconds)

    return _within_time(runner, read)


def read_frames_around(
    runner: FfmpegRunner,
    video: IndexedVideo,
    at_seconds: Fraction,
    *,
    radius: int,
    cancelled: Callable[[], bool],
    stall_seconds: float,
) -> FramesAround | None:
    """The frame of `read_frame` with the `radius` frames before it and after it, as far as there are any.

    None if it cannot be said which of the decoded frames it is: there are more or fewer than packets. Raises as
    `read_frame` does.
    """
    times = sorted(video.packets.pts)
    place = bisect_right(times, video.ticks_at(at_seconds)) - 1
    if place < 0:
        return None
    start = max(0, place - radius)
    wanted = times[start : place + radius + 1]

    def decode(runner: FfmpegRunner) -> list[Frame]:
        read = _Reading(runner, video, cancelled, stall_seconds)
        first, end, count = wanted[0], wanted[-1] + 1, len(wanted)
        found = read.sought(first, end=end, count=count)
        return read.last(None, first=first, end=end, count=count + 1) if found is None else found

    frames = _within_time(runner, decode)
    return FramesAround(frames, wanted, place - start) if len(frames) == len(wanted) else None


def _within_time(runner: FfmpegRunner, read: Callable[[FfmpegRunner], Result]) -> Result:
    seconds = min(runner.limits.wall_seconds, LONGEST_DECODING_SECONDS)
    limits = replace(runner.limits, wall_seconds=seconds)
    try:
        return read(runner.under(limits).within_one_limit())
    except FfmpegTimeout as error:
        raise PermanentError(TOO_FAR, detail=error.detail) from error


def _read_frame(video: IndexedVideo, read: "_Reading", at_seconds: Fraction) -> Frame:
    moment = video.ticks_at(at_seconds)
    wanted = max((pts for pts in video.packets.pts if pts <= moment), default=moment)
    found = read.sought(wanted, end=wanted + 1, count=1)
    if found is not None:
        return found[0]
    look_back = ceil(LOOK_BACK_SECONDS / video.info.video.time_base)
    for first in (wanted, moment - look_back, None):
        end = wanted + 1 if first == wanted else moment + 1
        for frame in read.last(None, first=first, end=end, count=1):
            return frame
    raise PermanentError(NO_FRAME)


def _seek_points(video: IndexedVideo, wanted: int) -> list[int]:
    """Keyframes to start decoding at, in ticks, the nearest first; empty if only the start of the file is possible."""
    stream, keyframes = video.info.video, video.packets.keyframes
    if video.metadata.deinterlacing is not None:
        deinterlacing = video.metadata.deinterlacing
        pictures = deinterlacing.pictures_before + deinterlacing.pictures_per_frame
        wanted -= ceil(pictures / (stream.frame_rate * stream.time_base))
    times = [pts for pts, _dts in keyframes]
    nearest = bisect_right(times, wanted) - 1
    if nearest <= 0:
        return []
    found = [nearest]
    earlier = bisect_right(times, floor(times[nearest] - EARLIER_SEEK_SECONDS / stream.time_base)) - 1
    if earlier > 0:
        found.append(earlier)
    return [keyframes[index][0 if video.seeks_by_pts else 1] for index in found]


@dataclass(frozen=True)
class _Reading:
    """Decodes frames of a video."""

    runner: FfmpegRunner
    video: IndexedVideo
    cancelled: Callable[[], bool]
    stall_seconds: float

    def sought(self, first: int, *, end: int, count: int) -> list[Frame] | None:
        """The `count` frames with a timestamp in [first, end), decoded from a keyframe on; None if none gives them."""
        before: list[Frame] = []
        for seek in _seek_points(self.video, first):
            frames = self.last(seek, first=first, end=end, count=count + 1)
            if len(frames) != count:
                before = []
                continue
            # Seeking by decoding time is inexact in some formats: frames count only if two seek points yield the same.
            if self.video.seeks_by_pts or (before and all(map(np.array_equal, frames, before))):
                return frames
            before = frames
        return None

    def last(self, seek: int | None, *, first: int | None, end: int, count: int) -> list[Frame]:
        """The last `count` frames with a timestamp in [first, end), decoded from `seek` on; fewer if there are."""
        video = self.video
        latest: deque[Frame] = deque(maxlen=count)
        spare = np.empty(video.colour.source.frame_bytes, np.uint8)
        stream = _decoding_stream(self.runner, video, seek=seek, first=first, end=end)
        with (
            Watchdog(cancelled=self.cancelled, stall_seconds=self.stall_seconds) as watchdog,
            self.runner.start(stream, purpose="reading the video", stdin=False, stdout=True) as process,
        ):
            watchdog.own(process)
            try:
                while process.read_exactly_into(spare.data):
                    unused = latest[0] if len(latest) == count else np.empty_like(spare)
                    latest.append(spare)
                    spare = unused
                    watchdog.progress()
                process.wait()
            except (FfmpegTimeout, FfmpegKilled, FfmpegMissing):
                # The watchdog may have killed the process.
                watchdog.check()
                raise
            except FfmpegError as error:
                watchdog.check()
                # Of a damaged file, what can be decoded is used, as in a render.
                log.warning("decoding_incomplete", frames=len(latest), detail=error.detail)
            watchdog.check()
        return list(latest)


def _decoding_stream(
    runner: FfmpegRunner, video: IndexedVideo, *, seek: int | None, first: int | None, end: int
) -> Stream:
    stream, deinterlacing = video.info.video, video.metadata.deinterlacing
    options = decoder_options(deinterlacing)
    if seek is not None:
        options |= seek_options(seek * stream.time_base)
    chain = filter_chain(
        time_base=stream.time_base,
        source=video.colour.source,
        decoded_pix_fmts=video.colour.decoded_pix_fmts,
        deinterlacing=deinterlacing,
        expansion=video.colour.expansion,
        trim=f"end_pts={end}" if first is None else f"start_pts={first}:end_pts={end}",
    )
    source = runner.input(video.path, **options)
    return ffmpeg.output(
        source[str(stream.index)],
        "pipe:1",
        f="rawvideo",
        vcodec="rawvideo",
        vf=chain,
        fps_mode="passthrough",
    )
