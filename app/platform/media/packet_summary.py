"""Counting and timing a video's packets by demuxing alone: nothing is decoded, and memory stays flat."""

from dataclasses import dataclass
from fractions import Fraction
from math import floor
from pathlib import Path

from app.platform.errors import FfmpegError, FfmpegKilled, FfmpegMissing, FfmpegTimeout

from .ffmpeg import FfmpegRunner
from .limits import MediaLimits, check_duration, check_input_frames

# Printed in this order, whatever the order here; side data may follow, on the same line or on one of its own.
PACKET_FIELDS = ("-show_entries", "packet=pts,dts,duration,flags", "-of", "csv=p=0")
# What the demuxers of MP4 and Matroska say when a file ends in the middle of something.
CUT_OFF_SIGNS = ("partial file", "File ended prematurely")


@dataclass(frozen=True, kw_only=True)
class PacketSummary:
    """What a walk over all packets of a video stream shows; timestamps in ticks of its time base.

    `frames`: packets that will be shown, 1 or more; `discarded`: those that an edit list keeps for decoding alone.
    `start_pts`: the least timestamp shown. `last_pts`: the greatest. `last_duration`: that packet's, 0 if it has none.
    `is_timed`: every packet says when it is shown.
    `ends_abruptly`: the demuxer met the file's end where it expected more.
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
    """Walk over the packets of one video stream; None when it has none to show.

    A packet without a pts (AVI, MPEG-PS) counts at its dts. Raises LimitExceeded as soon as the frames or their span
    are over a limit, so that a file of endless packets costs little, and what FfmpegProcess.wait raises; but a demuxer
    that fails after the first frame has met the end of what can be read, which is an abrupt end.
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
    """A timestamp as ffprobe prints it: `N/A` is none."""
    return None if text == "N/A" else int(text)
