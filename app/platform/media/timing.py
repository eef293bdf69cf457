"""A video's duration, frame rate and missing frames, from its packets and its container's metadata."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from .clock import may_restart
from .ffprobe_output import clock, fraction, integer
from .packet_summary import PacketSummary
from .rates import snap_ntsc

# Timestamps are rounded to ticks: the start and the end are each off by at most one tick.
ROUNDING_TICKS = 2
# The rate of a single frame without a duration: ffmpeg's default.
FALLBACK_FRAME_RATE = Fraction(25)
# A file is truncated if more than this many frames of its stated duration are missing.
CUT_OFF_FRAMES = Fraction(3, 2)
# MPEG-1 and MPEG-2 reorder by at most one frame, at the start and at the end.
REORDERED_FRAMES = 2


@dataclass(frozen=True, kw_only=True)
class Timing:
    """See the fields of the same names in VideoStream."""

    duration_seconds: Fraction
    frame_rate: Fraction
    declared_frames: int | None


def time_video(
    stream: dict[str, Any], container: dict[str, Any], scan: PacketSummary, *, time_base: Fraction
) -> Timing:
    """The timing, from `scan` and ffprobe's sections about the stream and its container."""
    declared_rates = _declared_rates(stream)
    formats = str(container.get("format_name", "")).split(",")
    last_duration = scan.last_duration
    if "avi" in formats:
        # In AVI every packet has a duration of one tick, however long its frame is shown. Empty chunks, of which ffmpeg
        # makes no packets, show the frame before them once more.
        last_duration = (
            max(1, integer(stream, "duration_ts") - scan.last_pts)
            if _is_whole_avi(stream, formats)
            else _last_duration_as_stated(stream, scan, start_pts=0)
        )
    elif "mov" in formats and (last_duration <= 0 or scan.is_last_uncertain):
        # Of frames at uneven times that are stored in another order, older versions of ffmpeg tell no duration, newer
        # ones that until the frame which is decoded next.
        last_duration = max(last_duration, _last_duration_as_stated(stream, scan, start_pts=scan.start_pts))
    duration_seconds = _duration(
        scan, last_duration=last_duration, time_base=time_base, declared_rates=declared_rates
    )
    if not scan.is_timed and any(map(may_restart, formats)):
        duration_seconds = _at_declared_rate(scan.frames, duration_seconds, declared_rates)
    missing_seconds = _missing_seconds(
        stream, container, scan, formats=formats, time_base=time_base, duration_seconds=duration_seconds
    )
    rate = _average_rate(
        scan.frames,
        duration_seconds,
        rounding_seconds=ROUNDING_TICKS * time_base,
        declared_rates=declared_rates,
    )
    is_cut_off = scan.ends_abruptly or (
        missing_seconds is not None and missing_seconds * rate > CUT_OFF_FRAMES
    )
    if not is_cut_off:
        declared_frames = None if missing_seconds is None else scan.frames
    else:
        # Before the truncation some frames are missing too: those stored later than they are shown.
        measured = rate
        rate = min(declared_rates, key=lambda declared: abs(declared - measured), default=rate)
        by_index = integer(stream, "nb_frames") - scan.discarded
        by_length = round((duration_seconds + (missing_seconds or 0)) * rate)
        declared_frames = max(by_index if by_index > 0 else by_length, scan.frames + 1)
    return Timing(duration_seconds=duration_seconds, frame_rate=rate, declared_frames=declared_frames)


def _declared_rates(stream: dict[str, Any]) -> list[Fraction]:
    """The container's rates, the most likely first; a decimal rate (FLV's 29.97) as the fraction it stands for."""
    rates = []
    for key in ("r_frame_rate", "avg_frame_rate"):
        rate = fraction(stream.get(key))
        if rate is not None and rate > 0:
            rates.append(snap_ntsc(rate, step=Fraction(1, 1000)))
    # Of rates that the timestamps cannot distinguish, a commonly used one is more likely.
    return sorted(rates, key=lambda rate: rate.denominator not in (1, 1001))


def _is_whole_avi(stream: dict[str, Any], formats: Sequence[str]) -> bool:
    """Whether an AVI is as long as its header says: of a file that breaks off, ffmpeg estimates the duration."""
    return "avi" in formats and integer(stream, "duration_ts") >= integer(stream, "nb_frames") > 0


def _last_duration_as_stated(stream: dict[str, Any], scan: PacketSummary, *, start_pts: int) -> int:
    """The duration of the last frame in ticks: until the header's stated end, if that is plausible."""
    stated = start_pts + integer(stream, "duration_ts") - scan.last_pts
    longest = CUT_OFF_FRAMES * Fraction(scan.last_pts - scan.start_pts, max(1, scan.frames - 1))
    return stated if 0 < stated <= longest else scan.last_duration


def _duration(
    scan: PacketSummary, *, last_duration: int, time_base: Fraction, declared_rates: list[Fraction]
) -> Fraction:
    """Seconds from the start of the first frame to the end of the last one, above 0."""
    span = (scan.last_pts - scan.start_pts) * time_base
    if last_duration > 0:
        return span + last_duration * time_base
    if span > 0:
        return span + span / (scan.frames - 1)
    return scan.frames / (declared_rates[0] if declared_rates else FALLBACK_FRAME_RATE)


def _at_declared_rate(frames: int, measured: Fraction, declared_rates: list[Fraction]) -> Fraction:
    """Seconds of `frames` at a declared rate that matches `measured` except for reordered frames, else `measured`.

    In a program stream, and a copy of one, not every frame has a pts.
    """
    for rate in declared_rates:
        if abs(frames / rate - measured) * rate <= REORDERED_FRAMES:
            return frames / rate
    return measured


def _average_rate(
    frames: int, duration_seconds: Fraction, *, rounding_seconds: Fraction, declared_rates: list[Fraction]
) -> Fraction:
    """Frames per second: a declared rate that matches the duration within rounding, else the quotient."""
    for rate in declared_rates:
        if abs(frames / rate - duration_seconds) <= rounding_seconds:
            return rate
    return frames / duration_seconds


def _missing_seconds(
    stream: dict[str, Any],
    container: dict[str, Any],
    scan: PacketSummary,
    *,
    formats: list[str],
    time_base: Fraction,
    duration_seconds: Fraction,
) -> Fraction | None:
    """Seconds of the stream's stated duration without packets; None if the container states none."""
    start_seconds = scan.start_pts * time_base
    if "matroska" in formats:
        # Matroska muxers state the track's end in a tag.
        end_seconds = clock(stream.get("tags", {}).get("DURATION"))
        if end_seconds is None and scan.ends_abruptly:
            end_seconds = fraction(container.get("duration"))
        return None if end_seconds is None else end_seconds - start_seconds - duration_seconds
    if _is_whole_avi(stream, formats):
        return Fraction(0)
    # Other containers state only the duration of the whole file, whose sound may be longer.
    if ("mov" in formats or "avi" in formats) and (stated := integer(stream, "duration_ts")):
        return stated * time_base - duration_seconds
    return None
