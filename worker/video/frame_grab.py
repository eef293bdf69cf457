"""One frame of a video, decoded by itself: the one that is shown at a moment.

The decoder and its filters are those of a render, so the frame is the one that a render would upscale. Where decoding
may begin is told by the file's packets; no other frame is decoded but those that this one depends on.
"""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor
from pathlib import Path

import ffmpeg
import numpy as np
import structlog
from numpy.typing import NDArray

from app.platform.errors import FfmpegError, FfmpegKilled, FfmpegMissing, FfmpegTimeout, PermanentError
from app.platform.media.ffmpeg import FfmpegRunner, Stream
from app.platform.media.limits import MediaLimits
from app.platform.media.probe import MediaInfo, probe_video
from worker.video.colour import ColourPlan, plan_colour
from worker.video.decoder import decoder_options, filter_chain, seconds_up
from worker.video.deinterlace import FRAMES_BEFORE
from worker.video.hdr_metadata import Traits, read_traits
from worker.video.scan import Packets, read_packets
from worker.video.segmenter import EARLIER_SEEK_SECONDS, SEEKS_BY_PTS
from worker.video.watchdog import Watch

# The frame that is shown at a moment is looked for this far back when its own packet gives none.
LOOK_BACK_SECONDS = 10

NO_FRAME = "There is no frame at this moment that can be decoded."

log = structlog.get_logger(__name__)

Frame = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Footage:
    """A video that has been looked at, for any number of its frames."""

    path: Path
    info: MediaInfo
    colour: ColourPlan
    traits: Traits
    packets: Packets

    @property
    def seeks_by_pts(self) -> bool:
        return any(name in SEEKS_BY_PTS for name in self.info.format_name.split(","))

    def ticks_at(self, at_seconds: Fraction) -> int:
        """The moment, counted from the first frame, in ticks of the file's timestamps."""
        return self.info.video.start_pts + floor(at_seconds / self.info.video.time_base)


def look_at(
    runner: FfmpegRunner, path: Path, *, scale: int, limits: MediaLimits, cancelled: Callable[[], bool]
) -> Footage:
    """Examine the file and list its packets. Raises what `probe_video`, `plan_colour` and `read_traits` raise, and
    Canceled when `cancelled` says so.
    """
    info = probe_video(runner, path, limits=limits)
    colour = plan_colour(info.video, scale=scale)
    traits = read_traits(runner, path, info, colour=colour)
    packets = read_packets(runner, path, info.video, cancelled)
    return Footage(path=path, info=info, colour=colour, traits=traits, packets=packets)


def read_frame(
    runner: FfmpegRunner,
    footage: Footage,
    at_seconds: Fraction,
    *,
    cancelled: Callable[[], bool],
    stall_seconds: float,
) -> Frame:
    """The last frame whose timestamp is not after `at_seconds` (0 is the first frame), as `footage.colour.source` says.

    Raises PermanentError when there is none, PipelineStalled when nothing came for `stall_seconds`, Canceled when
    `cancelled` says so.
    """
    moment = footage.ticks_at(at_seconds)
    wanted = max((pts for pts in footage.packets.pts if pts <= moment), default=moment)

    def decode(seek: int | None, *, first: int | None, end: int) -> Frame | None:
        with Watch(cancelled=cancelled, stall_seconds=stall_seconds) as watch:
            return _last_frame(runner, footage, watch, seek=seek, first=first, end=end)

    before: Frame | None = None
    for seek in _seek_points(footage, wanted):
        frame = decode(seek, first=wanted, end=wanted + 1)
        # Some formats are entered at a guess, and may not give the picture that was coded: two such shall agree.
        if frame is not None and (
            footage.seeks_by_pts or (before is not None and np.array_equal(frame, before))
        ):
            return frame
        before = frame
    look_back = ceil(LOOK_BACK_SECONDS / footage.info.video.time_base)
    for first in (wanted, moment - look_back, None):
        end = wanted + 1 if first == wanted else moment + 1
        frame = decode(None, first=first, end=end)
        if frame is not None:
            return frame
    raise PermanentError(NO_FRAME)


def _seek_points(footage: Footage, wanted: int) -> list[int]:
    """Where decoding can begin, in ticks, the nearest first; none where that is the file's start."""
    video, keyframes = footage.info.video, footage.packets.keyframes
    if footage.traits.deinterlacing is not None:
        wanted -= ceil((FRAMES_BEFORE + 1) / (video.frame_rate * video.time_base))
    times = [pts for pts, _dts in keyframes]
    nearest = bisect_right(times, wanted) - 1
    if nearest <= 0:
        return []
    found = [nearest]
    earlier = bisect_right(times, floor(times[nearest] - EARLIER_SEEK_SECONDS / video.time_base)) - 1
    if earlier > 0:
        found.append(earlier)
    return [keyframes[index][0 if footage.seeks_by_pts else 1] for index in found]


def _last_frame(
    runner: FfmpegRunner, footage: Footage, watch: Watch, *, seek: int | None, first: int | None, end: int
) -> Frame | None:
    """The last frame from `first` on and before `end`, decoded from `seek` on; None when there is none."""
    latest: Frame | None = None
    spare = np.empty(footage.colour.source.frame_bytes, np.uint8)
    stream = _decoding_stream(runner, footage, seek=seek, first=first, end=end)
    with runner.start(stream, purpose="reading the video", stdin=False, stdout=True) as process:
        watch.own(process)
        try:
            while process.read_exactly_into(spare.data):
                latest, spare = spare, np.empty_like(spare) if latest is None else latest
                watch.progress()
            process.wait()
        except (FfmpegTimeout, FfmpegKilled, FfmpegMissing):
            # The watch may be who has killed it.
            watch.check()
            raise
        except FfmpegError as error:
            watch.check()
            # Of a damaged file what can be decoded counts, as in a render.
            log.warning("decoding_incomplete", frames=0 if latest is None else 1, detail=error.detail)
    watch.check()
    return latest


def _decoding_stream(
    runner: FfmpegRunner, footage: Footage, *, seek: int | None, first: int | None, end: int
) -> Stream:
    video, deinterlacing = footage.info.video, footage.traits.deinterlacing
    options = decoder_options(deinterlacing)
    if seek is not None:
        options |= {"noaccurate_seek": None, "seek_timestamp": 1, "ss": seconds_up(seek * video.time_base)}
    chain = filter_chain(
        time_base=video.time_base,
        source=footage.colour.source,
        decoded_pix_fmts=footage.colour.decoded_pix_fmts,
        deinterlacing=deinterlacing,
        trim=f"end_pts={end}" if first is None else f"start_pts={first}:end_pts={end}",
    )
    source = runner.input(footage.path, **options)
    return ffmpeg.output(
        source[str(video.index)],
        "pipe:1",
        f="rawvideo",
        vcodec="rawvideo",
        vf=chain,
        fps_mode="passthrough",
    )
