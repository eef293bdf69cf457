"""The count and the timestamps of a video's packets, by demuxing alone, in constant memory."""

from dataclasses import dataclass
from fractions import Fraction
from math import floor
from pathlib import Path

from app.platform.errors import FfmpegError, FfmpegKilled, FfmpegMissing, FfmpegTimeout

from .ffmpeg import FfmpegRunner
from .limits import MediaLimits, check_duration, check_input_frames

# ffprobe prints the fields in this order in any case; side data may follow, on the same line or the next one.
PACKET_FIELDS = ("-show_entries", "packet=pts,dts,duration,flags", "-of", "csv=p=0")
# Messages of the MP4 and Matroska demuxers about a truncated file.
CUT_OFF_SIGNS = ("partial file", "File ended prematurely")


@dataclass(frozen=True, kw_only=True)
class PacketSummary:
    """A summary of all packets of a video stream; timestamps in ticks of its time base.

    `frames`: packets that will be shown, 1 or more; `discarded`: packets that an edit list keeps only for decoding.
    `start_pts`, `last_pts`: the smallest and largest timestamp shown. `last_duration`: the duration of the packet at
    `last_pts`, 0 if it has none. `is_timed`: every packet has a pts.
    `ends_abruptly`: the demuxer reached the end of the file where it expected more.
    """

    frames: int
    discarded: int
    start_pts: int
    last_pts: int
    last_duration: int
    is_timed: bool
    ends_abruptly: bool


def summarize_packets(  # noqa: C901 - one loop over the packets, all of whose state is local
    runner: FfmpegRunner, path: Path, *, stream_index: int, time_base: Fraction, limits: MediaLimits
) -> PacketSummary | None:
    """Read the packets of one video stream; None if no packet is shown.

    A packet without a pts (AVI, MPEG-PS) counts at its dts. Raises LimitExceeded as soon as the frames or their span
    exceed a limit, so that endless packets cost little, and what FfmpegProcess.wait raises. A failure of the demuxer
    after the first frame is not raised: it makes `ends_abruptly` true.
    """
    frames = discarded = start_pts = last_pts = last_duration = 0
    longest_span = floor(limits.max_duration_seconds / time_base)
    most_frames, failed, is_timed = limits.max_input_frames, False, True
    with runner.scan_lines(path, "-select_streams", str(stream_index), *PACKET_FIELDS) as lines:
        try:
            for line in lines:
                fields = line.split(",")
                if len(fields) < 4:
                    continue
                if "D" in fields[3]:
                    discarded += 1
                    continue
                frames += 1
                if frames > most_frames:
                    check_input_frames(frames, limits)
                duration = _ticks(fields[2]) or 0
                pts = _ticks(fields[0])
                if pts is None:
                    is_timed = False
                    pts = _ticks(fields[1])
                if pts is None:
                    pts = last_pts + last_duration
                start_pts = pts if frames == 1 else min(start_pts, pts)
                if frames == 1 or pts >= last_pts:
                    last_pts, last_duration = pts, duration
                if last_pts - start_pts > longest_span:
                    check_duration((last_pts - start_pts) * time_base, limits)
        except (FfmpegTimeout, FfmpegKilled, FfmpegMissing):
            raise
        except FfmpegError:
            if frames == 0:
                raise
            failed = True
        said = lines.stderr_tail
    if frames == 0:
        return None
    return PacketSummary(
        frames=frames,
        discarded=discarded,
        start_pts=start_pts,
        last_pts=last_pts,
        last_duration=last_duration,
        is_timed=is_timed,
        ends_abruptly=failed or any(sign in said for sign in CUT_OFF_SIGNS),
    )


def _ticks(text: str) -> int | None:
    """A timestamp as ffprobe prints it; None for `N/A`."""
    return None if text == "N/A" else int(text)
