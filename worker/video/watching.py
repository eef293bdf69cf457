"""What a prepared render needs so that it can be watched before it is completed: when its segments are shown, and the
sound that goes with them, in a form that every browser plays."""

from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import accumulate
from pathlib import Path

import structlog

from app.platform.errors import (
    Canceled,
    FfmpegCancelled,
    FfmpegDiskFull,
    FfmpegError,
    FfmpegInterrupted,
    FfmpegMissing,
)
from app.platform.media.containers import MP4
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.segment_times import SegmentTimes
from worker.video.filter_expressions import seconds_option
from worker.video.plan import RenderPlan, SegmentPlan

# Frames that x264 and x265 hold back for B-frames: references among these have one level.
HELD_BACK_FRAMES = 2
BITS_PER_SECOND = 128_000
SAMPLING_RATE = 48_000

log = structlog.get_logger(__name__)


def segment_times(render: RenderPlan, segments: Sequence[SegmentPlan]) -> SegmentTimes | None:
    """None where there is nothing to watch before the end: a single segment, or a codec that no player of playlists
    has, or has with transparency."""
    if len(segments) < 2 or render.segment_file is not MP4:
        return None
    delay = 0
    if render.reorder and render.codec in ("h264", "hevc"):
        durations: Counter[int] = Counter()
        for segment in segments:
            for count, ticks in segment.runs:
                durations[ticks] += count
        ((usual, _),) = durations.most_common(1)
        delay = HELD_BACK_FRAMES * usual
    ends = list(accumulate(segment.duration_ticks for segment in segments))
    return SegmentTimes(timescale=render.timescale, delay=delay, ends=ends)


def write_sound(
    runner: FfmpegRunner,
    source: Path,
    destination: Path,
    *,
    render: RenderPlan,
    cancelled: Callable[[], bool],
) -> bool:
    """Write the source's first sound as AAC in stereo, from the output's first frame to its end. Returns False if it
    has none that can be read: what is watched is then silent, and the result may still have it.

    Raises Canceled once `cancelled` returns True, FfmpegDiskFull, and FfmpegInterrupted.
    """
    start = render.input_start_seconds + Fraction(render.offset_ticks, render.timescale)
    read = runner.input(source, copyts=None, itsoffset=seconds_option(-start))
    end = seconds_option(render.duration_seconds)
    # Silence where sound is missing, at the start and the end too: it stays in step, and no player waits for it.
    filters = f"atrim=start=0:end={end},aresample={SAMPLING_RATE}:async=1:first_pts=0,apad,atrim=end={end}"
    command = runner.output(
        read["a:0"],
        destination,
        af=filters,
        acodec="aac",
        aac_coder="fast",
        audio_bitrate=BITS_PER_SECOND,
        ac=2,
        map_metadata=-1,
        map_chapters=-1,
        f="mp4",
        movflags="+faststart",
    )
    try:
        runner.run(command, purpose="making the sound to watch with", cancelled=cancelled)
    except FfmpegCancelled as error:
        raise Canceled() from error
    except (FfmpegDiskFull, FfmpegInterrupted, FfmpegMissing):
        raise
    except FfmpegError as error:
        log.warning("watched_without_sound", detail=error.detail)
        return False
    return True
