"""Lists every frame that the decoder delivers, with timestamp and checksum, and the keyframes.

Two passes over the file: ffprobe lists the demuxer's packets, for keyframes and durations; then the video is decoded
once, by the program and filters that decode the segments later. ffmpeg's `framecrc` muxer writes a line per frame with
its timestamp and checksum, so that memory does not grow and a segment can verify the frames that it decodes.
"""

import re
import time
from array import array
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import ffmpeg
import structlog

from app.platform.errors import (
    Canceled,
    FfmpegError,
    FfmpegKilled,
    FfmpegMissing,
    FfmpegTimeout,
    PermanentError,
)
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.probe import VideoStream
from app.platform.media.whitelists import VIDEO_DECODERS
from worker.inference.frames import FrameFormat
from worker.video.decoder import decoder_options, filter_chain
from worker.video.deinterlace import Deinterlacing
from worker.video.timeline import SourceTimeline, increasing_timestamps

log = structlog.get_logger(__name__)

# ffmpeg's time bases are of 32 bits.
MAX_DENOMINATOR = 2**31 - 1
# Lines between two polls of `cancelled`.
LINES_PER_CHECK = 64
# Least time between two looks at the frames so far, and the largest part of all time that they take.
LOOK_SECONDS, LOOK_SHARE = 2.0, 0.1
# Most frames that a decoder reorders by (ITU-T H.264, max_num_reorder_frames).
MAX_REORDERED_FRAMES = 16

# Messages of ffmpeg's demuxers about a truncated file, and of its decoders about damaged pictures.
_CUT_OFF_SIGNS = re.compile(r"partial file|ended prematurely|truncat", re.IGNORECASE)
_DAMAGE_SIGNS = re.compile(
    r"concealing|error while decoding|Invalid NAL|(?<!Packet )corrupt(?! input)|Invalid data found|Error submitting",
    re.IGNORECASE,
)
# Errors that decoders report of whole pictures too: about what is beside the picture.
_HARMLESS_ERROR = re.compile(r"SEI type|VPS [0-9]+ does not exist|unable to decode APP fields")
# What the MPEG-TS demuxer and ffmpeg say where packets are not numbered in turn: some are lost, or files were joined.
_OUT_OF_TURN_SIGNS = re.compile(r"Packet corrupt|corrupt input packet")
# A longer gap is a jump of the clock, not lost frames.
LONGEST_LOSS_SECONDS = 1

CUT_OFF_WARNING = "The file is cut off; it was upscaled as far as it can be decoded."
DAMAGE_WARNING = "Parts of the video are damaged; they were upscaled as far as they could be decoded."
TIMES_WARNING = "Some frames had no valid timestamp; they were spaced evenly."


@dataclass(frozen=True, kw_only=True)
class Packets:
    """The video stream's packets, in file order and ticks of its time base. `keyframes`: (pts, dts), by pts."""

    pts: Sequence[int]
    durations: Sequence[int]
    keyframes: Sequence[tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class FrameScan:
    """Every frame that the decoder delivers, in presentation order.

    `is_trusted`: no timestamp had to be repaired, so frames can be found by timestamp. `has_interlaced`: a frame is
    marked as interlaced, and was not deinterlaced.
    """

    timeline: SourceTimeline
    checksums: Sequence[int]
    keyframes: Sequence[tuple[int, int]]
    is_trusted: bool
    warnings: tuple[str, ...]
    has_interlaced: bool = False


def scan_frames(
    runner: FfmpegRunner,
    path: Path,
    *,
    video: VideoStream,
    source: FrameFormat,
    decoded_pix_fmts: Sequence[str],
    deinterlacing: Deinterlacing | None,
    expansion: str | None,
    cancelled: Callable[[], bool],
    on_frames: Callable[[FrameScan], None] | None = None,
) -> FrameScan:
    """Demux and decode the whole video stream once.

    `on_frames` gets the scan of the frames so far, now and then, as long as none is marked as interlaced; it is given a
    tenth of the time. Raises PermanentError if no frame can be decoded, Canceled once `cancelled` returns True,
    FfmpegError otherwise.
    """
    packets = read_packets(runner, path, video, cancelled)
    nominal = max(1, round(1 / (video.frame_rate * video.time_base)))

    def look(pts: Sequence[int], checksums: Sequence[int]) -> None:
        if on_frames is None or not packets.pts:
            return
        times, changed = increasing_timestamps(pts, nominal=nominal)
        on_frames(
            FrameScan(
                timeline=SourceTimeline(time_base=video.time_base, pts=times, end_pts=times[-1] + nominal),
                checksums=checksums,
                keyframes=packets.keyframes,
                is_trusted=not changed,
                warnings=(),
            )
        )

    pts, checksums, complaints, has_interlaced = _decode(
        runner, path, video, source, decoded_pix_fmts, deinterlacing, expansion, cancelled, look
    )
    if not pts:
        raise PermanentError("None of the video's frames can be decoded.", detail=complaints[-4000:])
    if not packets.pts:
        # A stream without a container has no timestamps, and ffmpeg rounds those that it assumes to microseconds.
        ticks_per_frame = 1 / (video.frame_rate * video.time_base)
        pts = [round(number * ticks_per_frame) for number in range(len(pts))]
    times, changed = increasing_timestamps(pts, nominal=nominal)
    last = _last_duration(packets, pts[-1])
    if last <= 1 and len(times) == video.frames:
        # The container may state the video's end if the packets do not: in AVI they always last a tick.
        last = round(video.duration_seconds / video.time_base) - (times[-1] - times[0])
    if last <= 0:
        last = max(1, round((times[-1] - times[0]) / (len(times) - 1))) if len(times) > 1 else nominal
    timeline = SourceTimeline(time_base=video.time_base, pts=times, end_pts=times[-1] + last)
    warnings = []
    promised = video.declared_frames
    if (promised is not None and promised > video.frames) or _CUT_OFF_SIGNS.search(complaints):
        warnings.append(CUT_OFF_WARNING)
    elif _tell_of_damage(complaints, video.codec) or (
        _OUT_OF_TURN_SIGNS.search(complaints) and _misses_frames(timeline, nominal=nominal)
    ):
        warnings.append(DAMAGE_WARNING)
    if changed:
        warnings.append(TIMES_WARNING)
    log.info(
        "frames_scanned", packets=len(packets.pts), frames=len(times), repaired=changed, warnings=warnings
    )
    return FrameScan(
        timeline=timeline,
        checksums=checksums,
        keyframes=packets.keyframes,
        is_trusted=bool(packets.pts) and not changed,
        warnings=tuple(warnings),
        has_interlaced=has_interlaced,
    )


def _tell_of_damage(complaints: str, codec: str) -> bool:
    """Whether ffmpeg, or a decoder of `codec`, complains of damage in the lines that ffmpeg wrote to stderr."""
    decoders = "|".join(re.escape(name) for name in VIDEO_DECODERS[codec])
    error = re.compile(rf"\[(?:{decoders}) @ [^\]]*\] \[error\]")
    lines = [line for line in complaints.splitlines() if not _HARMLESS_ERROR.search(line)]
    return any(error.match(line) or _DAMAGE_SIGNS.search(line) for line in lines)


def read_packets(
    runner: FfmpegRunner, path: Path, video: VideoStream, cancelled: Callable[[], bool]
) -> Packets:
    """What the demuxer tells of the video stream. Raises Canceled when `cancelled` says so."""
    reorder_ticks = round(MAX_REORDERED_FRAMES / (video.frame_rate * video.time_base))
    pts, durations = array("q"), array("q")
    keyframes: list[tuple[int, int]] = []
    arguments = ["-select_streams", str(video.index), "-show_entries", "packet=pts,dts,duration,flags"]
    lines = runner.scan_lines(path, *arguments, "-of", "csv=p=0")
    with closing(lines):
        try:
            for number, line in enumerate(lines):
                if number % LINES_PER_CHECK == 0:
                    _raise_if_cancelled(cancelled)
                fields = line.split(",")
                if len(fields) < 4:
                    continue
                at, decoded_at = _ticks(fields[0]), _ticks(fields[1])
                if at is None:
                    if decoded_at is None:
                        continue
                    # AVI and MPEG-PS have no pts for reordered frames: this is the latest possible.
                    at = decoded_at + reorder_ticks
                pts.append(at)
                durations.append(_ticks(fields[2]) or 0)
                if "K" in fields[3]:
                    keyframes.append((at, at if decoded_at is None else min(at, decoded_at)))
        except (FfmpegTimeout, FfmpegKilled, FfmpegMissing):
            raise
        except FfmpegError as error:
            # Of a damaged file, the packets before the damage are used; the decoding pass decides.
            log.warning("packet_scan_incomplete", packets=len(pts), detail=error.detail)
    return Packets(pts=pts, durations=durations, keyframes=sorted(keyframes))


def _decode(
    runner: FfmpegRunner,
    path: Path,
    video: VideoStream,
    source: FrameFormat,
    decoded_pix_fmts: Sequence[str],
    deinterlacing: Deinterlacing | None,
    expansion: str | None,
    cancelled: Callable[[], bool],
    look: Callable[[Sequence[int], Sequence[int]], None],
) -> tuple[Sequence[int], Sequence[int], str, bool]:
    """Timestamp and checksum of each frame, ffmpeg's messages, and whether one was left interlaced. `look` gets the
    first two in between.
    """
    marks_interlaced = deinterlacing is None and 2 * video.time_base.denominator <= MAX_DENOMINATOR
    unit = 2 if marks_interlaced else 1
    time_base = f"{video.time_base.numerator}/{unit * video.time_base.denominator}"
    has_interlaced = False
    chain = filter_chain(
        time_base=video.time_base,
        source=source,
        decoded_pix_fmts=decoded_pix_fmts,
        deinterlacing=deinterlacing,
        expansion=expansion,
        marks_interlaced=marks_interlaced,
    )
    options: dict[str, Any] = {
        "vf": chain,
        "vcodec": "rawvideo",
        "fps_mode": "passthrough",
        "enc_time_base": time_base,
        "avoid_negative_ts": "disabled",
        "f": "framecrc",
    }
    decoded = runner.input(path, **decoder_options(deinterlacing))
    stream = ffmpeg.output(decoded[str(video.index)], "pipe:1", **options)
    pts, checksums = array("q"), array("L")
    look_at = time.monotonic() + LOOK_SECONDS
    with runner.start(
        stream, purpose="reading the video", stdin=False, stdout=True, may_wait=False
    ) as process:
        for line in process.lines():
            if len(pts) % LINES_PER_CHECK == 0:
                _raise_if_cancelled(cancelled)
                if pts and not has_interlaced and (began := time.monotonic()) >= look_at:
                    look(pts, checksums)
                    ended = time.monotonic()
                    look_at = ended + max(LOOK_SECONDS, (ended - began) * (1 / LOOK_SHARE - 1))
            if line.startswith("#"):
                if line.startswith("#tb 0:") and line.split(":", 1)[1].strip() != time_base:
                    raise FfmpegError(
                        "The video program uses a different time base than requested.", detail=line
                    )
                continue
            # stream, dts, pts, duration, size, checksum, side data
            fields = line.split(",")
            if int(fields[4]) != source.frame_bytes:
                raise FfmpegError("The video program delivers frames of a different size.", detail=line)
            ticks, is_marked = divmod(int(fields[2]), unit)
            has_interlaced = has_interlaced or is_marked > 0
            pts.append(ticks)
            checksums.append(int(fields[5], 16))
        try:
            process.wait()
        except (FfmpegTimeout, FfmpegKilled, FfmpegMissing):
            raise
        except FfmpegError as error:
            if not pts:
                raise PermanentError(
                    "None of the video's frames can be decoded.", detail=error.detail
                ) from error
            log.warning("decoding_incomplete", frames=len(pts), detail=error.detail)
        return pts, checksums, process.stderr_tail, has_interlaced


def _misses_frames(timeline: SourceTimeline, *, nominal: int) -> bool:
    """Whether there is a gap among the frames, `nominal` ticks apart, that is not a jump of the clock."""
    longest = LONGEST_LOSS_SECONDS / timeline.time_base
    return any(1.5 * nominal < after - before <= longest for before, after in pairwise(timeline.pts))


def _last_duration(packets: Packets, pts: int) -> int:
    """Duration of the packet with that `pts`, which is one of the last; 0 if unknown."""
    for index in range(len(packets.pts) - 1, -1, -1):
        if packets.pts[index] == pts:
            return packets.durations[index]
    return 0


def _ticks(text: str) -> int | None:
    return None if text == "N/A" else int(text)


def _raise_if_cancelled(cancelled: Callable[[], bool]) -> None:
    if cancelled():
        raise Canceled()
