"""How long a video lasts, at what rate, and how much of it is missing, from its packets and its container's claims."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from .ffprobe_fields import clock, fraction, integer
from .packet_summary import PacketSummary
from .rates import snap_ntsc

# Timestamps are rounded to ticks: the first and the end of the last are each off by a tick at most.
ROUNDING_TICKS = 2
# For a single frame of which nothing says how long it is shown: ffmpeg's own default.
FALLBACK_FRAME_RATE = Fraction(25)
# A container whose stated length is missing by more than this many frames was cut off.
CUT_OFF_FRAMES = Fraction(3, 2)
# MPEG-1 and MPEG-2 decode a frame no more than one before its turn; it is off at the start and at the end.
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
    """What `scan` and ffprobe's sections on the stream and its container say together."""
    declared_rates = _declared_rates(stream)
    formats = str(container.get("format_name", "")).split(",")
    last_duration = scan.last_duration
    if "avi" in formats:
        # There a packet lasts a tick, however long the frame is shown: slots of time may be left empty.
        last_duration = _last_duration_as_stated(stream, scan, start_pts=0)
    elif "mov" in formats and last_duration <= 0:
        # Of uneven timestamps, ffmpeg's demuxer does not say it.
        last_duration = _last_duration_as_stated(stream, scan, start_pts=scan.start_pts)
    duration_seconds = _duration(
        scan, last_duration=last_duration, time_base=time_base, declared_rates=declared_rates
    )
    if "mpeg" in formats and not scan.is_timed:
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
        # Of the frames before a cut some are missing: those that come later in the file than in time.
        measured = rate
        rate = min(declared_rates, key=lambda declared: abs(declared - measured), default=rate)
        by_index = integer(stream, "nb_frames") - scan.discarded
        by_length = round((duration_seconds + (missing_seconds or 0)) * rate)
        declared_frames = max(by_index if by_index > 0 else by_length, scan.frames + 1)
    return Timing(duration_seconds=duration_seconds, frame_rate=rate, declared_frames=declared_frames)


def _declared_rates(stream: dict[str, Any]) -> list[Fraction]:
    """The container's rates, likeliest first; one that it holds as a decimal (FLV's 29.97) as the fraction it means."""
    rates = []
    for key in ("r_frame_rate", "avg_frame_rate"):
        rate = fraction(stream.get(key))
        if rate is not None and rate > 0:
            rates.append(snap_ntsc(rate, step=Fraction(1, 1000)))
    # Among rates that the timestamps cannot tell apart, one in common use is the likelier.
    return sorted(rates, key=lambda rate: rate.denominator not in (1, 1001))


def _last_duration_as_stated(stream: dict[str, Any], scan: PacketSummary, *, start_pts: int) -> int:
    """Ticks that the last frame is shown for: until the end that the header states, if that is where it should be."""
    stated = start_pts + integer(stream, "duration_ts") - scan.last_pts
    longest = CUT_OFF_FRAMES * Fraction(scan.last_pts - scan.start_pts, max(1, scan.frames - 1))
    return stated if 0 < stated <= longest else scan.last_duration


def _duration(
    scan: PacketSummary, *, last_duration: int, time_base: Fraction, declared_rates: list[Fraction]
) -> Fraction:
    """Seconds from the first frame shown to the end of the last one; above 0."""
    span = (scan.last_pts - scan.start_pts) * time_base
    if last_duration > 0:
        return span + last_duration * time_base
    if span > 0:
        return span + span / (scan.frames - 1)
    return scan.frames / (declared_rates[0] if declared_rates else FALLBACK_FRAME_RATE)


def _at_declared_rate(frames: int, measured: Fraction, declared_rates: list[Fraction]) -> Fraction:
    """Seconds that `frames` last at a declared rate, if that is what was measured but for frames decoded out of turn:
    a program stream does not say of each of them when it is shown.
    """
    for rate in declared_rates:
        if abs(frames / rate - measured) * rate <= REORDERED_FRAMES:
            return frames / rate
    return measured


def _average_rate(
    frames: int, duration_seconds: Fraction, *, rounding_seconds: Fraction, declared_rates: list[Fraction]
) -> Fraction:
    """Frames a second: a declared rate if `frames` at that rate last as long, but for rounding, else the quotient."""
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
    """How much of the stream's stated length there is no packet for; None where no length is stated for it."""
    start_seconds = scan.start_pts * time_base
    if "matroska" in formats:
        # Matroska states where the track ends, in a tag of the muxer's.
        end_seconds = clock(stream.get("tags", {}).get("DURATION"))
        if end_seconds is None and scan.ends_abruptly:
            end_seconds = fraction(container.get("duration"))
        return None if end_seconds is None else end_seconds - start_seconds - duration_seconds
    # Other containers state the length of the whole file alone, which sound may outlast.
    if ("mov" in formats or "avi" in formats) and (stated := integer(stream, "duration_ts")):
        return stated * time_base - duration_seconds
    return None
