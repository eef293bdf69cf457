"""Lists every frame that the decoder delivers, with timestamp and checksum, and the keyframes.

Two passes over the file: ffprobe lists the demuxer's packets, for keyframes and durations; then the video is decoded
once, by the program and filters that decode the segments later. Of a part of the video, only that is decoded, from a
keyframe before it on, if that delivers a frame for each of its packets.
"""

import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from math import ceil, floor
from pathlib import Path

import structlog

from app.platform.errors import (
    PermanentError,
)
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.file_listing import FileListing
from app.platform.media.probe import VideoStream
from app.platform.media.whitelists import VIDEO_DECODERS
from worker.inference.frames import FrameFormat
from worker.video.deinterlace import Deinterlacing
from worker.video.frame_list import DecodedFrames, FrameDecoder
from worker.video.input_ranges import RangeFinder, range_finder
from worker.video.packet_list import (
    Packets,
    TickRange,
    read_packets,
)
from worker.video.timeline import SourceTimeline, increasing_timestamps

log = structlog.get_logger(__name__)

# Least distance of the fallback keyframe before the nearest one.
EARLIER_SEEK_SECONDS = 2
# How late a frame's timestamp may be repaired to.
LATE_SECONDS = 2

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
NOTHING_IN_PART = "No frame of the video begins between `start` and `end`."
TIMES_WARNING = "Some frames had no valid timestamp; they were spaced evenly."


@dataclass(frozen=True, kw_only=True)
class FrameScan:
    """Every frame that the decoder delivers, in presentation order, up to the end of the part that was asked for.

    `first_frame`: the first of the part; the checksums of those before it mean nothing. `expected_frames`: how many
    the part has, to judge by the packets.
    `differences`: of each frame of a telecined film from the one before, in codes of 8 bits, see `film.film_of`.
    `is_trusted`: no timestamp had to be repaired, so frames can be found by timestamp. `has_interlaced`: a frame is
    marked as interlaced, and was not deinterlaced. `late_ticks`: by how much the timestamps are too late.
    `ranges`: None if segments need the whole file.
    """

    timeline: SourceTimeline
    checksums: Sequence[int]
    keyframes: Sequence[tuple[int, int]]
    is_trusted: bool
    warnings: tuple[str, ...]
    has_interlaced: bool = False
    first_frame: int = 0
    expected_frames: int | None = None
    late_ticks: int = 0
    ranges: RangeFinder | None = None
    differences: Sequence[float] = ()

    @property
    def part(self) -> SourceTimeline:
        """The timeline from `first_frame` on."""
        return replace(self.timeline, pts=self.timeline.pts[self.first_frame :])


def scan_frames(  # noqa: PLR0913 - what is read, how, and what is asked of the scan
    runner: FfmpegRunner,
    path: Path,
    *,
    video: VideoStream,
    source: FrameFormat,
    decoded_pix_fmts: Sequence[str],
    deinterlacing: Deinterlacing | None,
    expansion: str | None,
    decoder: str | None = None,
    cancelled: Callable[[], bool],
    on_frames: Callable[[FrameScan], None] | None = None,
    part: TickRange | None = None,
    seeks_by_pts: bool = False,
    first_pts: int = 0,
    listing: FileListing | None = None,
) -> FrameScan:
    """Demux the whole video stream, and decode it, or the part of it, once.

    `on_frames` gets the scan of the frames so far, now and then, as long as none is marked as interlaced; it is given a
    tenth of the time. `seeks_by_pts`: see `segmenter.SEEKS_BY_PTS`. `first_pts`: see FirstFrames. `listing`: see
    MediaInfo. To deinterlace by field, `video` is that of `as_fields`. Raises PermanentError
    if no frame can be decoded, Canceled once `cancelled` returns True, FfmpegError otherwise.
    """
    nominal = max(1, round(1 / (video.frame_rate * video.time_base)))
    packets = read_packets(runner, path, video, cancelled, listing=listing)
    packets = packets.as_decoded(first_pts, nominal=nominal)
    if deinterlacing is not None and deinterlacing.by_field:
        packets = packets.as_fields()
    part = None if part is None else part.later(packets.late_ticks)
    ranges = range_finder(path, packets.places)
    decoding = FrameDecoder(
        runner=runner,
        path=path,
        video=video,
        source=source,
        decoded_pix_fmts=decoded_pix_fmts,
        deinterlacing=deinterlacing,
        expansion=expansion,
        decoder=decoder,
        cancelled=cancelled,
    )
    expected = None if part is None else sum(1 for pts in packets.pts if part.contains(pts))

    def scan_of(frames: DecodedFrames, before: Sequence[int], *, last: int | None = None) -> FrameScan | None:
        """The scan of these frames after those at the times `before`; None if none of them is in the part."""
        times, changed = increasing_timestamps(frames.pts, nominal=nominal)
        # ffmpeg delivers a part's first frames with all before them only where the part is not found by timestamp.
        first = 0 if part is None or before else bisect_left(times, part.first)
        stop = len(times) if part is None or part.stop is None else bisect_left(times, part.stop)
        if first >= stop:
            return None
        end = times[stop] if stop < len(times) else times[stop - 1] + (last or nominal)
        return FrameScan(
            timeline=SourceTimeline(
                time_base=video.time_base,
                pts=[*before, *times[:stop]] if before else times[:stop],
                end_pts=end,
            ),
            checksums=[*(0 for _ in before), *frames.checksums[:stop]] if before else frames.checksums[:stop],
            differences=_of_frames(frames.differences, first, stop),
            keyframes=packets.keyframes,
            is_trusted=bool(packets.pts) and not changed,
            warnings=(TIMES_WARNING,) if changed else (),
            has_interlaced=frames.has_interlaced,
            first_frame=len(before) + first,
            expected_frames=expected,
            late_ticks=packets.late_ticks,
            ranges=ranges,
        )

    def look(before: Sequence[int], frames: DecodedFrames) -> None:
        if on_frames is not None and packets.pts and (scan := scan_of(frames, before)) is not None:
            on_frames(replace(scan, warnings=()))

    frames, before = _decode_part(decoding, packets, part, look, nominal=nominal, seeks_by_pts=seeks_by_pts)
    if not frames.pts:
        raise PermanentError("None of the video's frames can be decoded.", detail=frames.complaints[-4000:])
    if not packets.pts:
        # A stream without a container has no timestamps, and ffmpeg rounds those that it assumes to microseconds.
        ticks_per_frame = 1 / (video.frame_rate * video.time_base)
        frames.pts = array("q", (round(number * ticks_per_frame) for number in range(len(frames.pts))))
    if part is None and packets.held_back and len(frames.pts) == len(packets.pts):
        # What the decoder says of the last frames is invented.
        frames.pts = [*frames.pts[: -packets.held_back], *packets.pts[-packets.held_back :]]
    last = _last_frame_ticks(packets, [*before, *frames.pts], video, nominal=nominal)
    scan = scan_of(frames, before, last=last)
    if scan is None:
        raise PermanentError(NOTHING_IN_PART)
    warnings = [*_told_warnings(frames.complaints, video, scan, nominal=nominal), *scan.warnings]
    log.info(
        "frames_scanned",
        packets=len(packets.pts),
        frames=len(scan.part.pts),
        repaired=not scan.is_trusted,
        warnings=warnings,
    )
    return replace(scan, warnings=tuple(warnings))


def _decode_part(
    decoder: FrameDecoder,
    packets: Packets,
    part: TickRange | None,
    look: Callable[[Sequence[int], DecodedFrames], None],
    *,
    nominal: int,
    seeks_by_pts: bool,
) -> tuple[DecodedFrames, Sequence[int]]:
    """The part's frames and the times of those before it; or all frames up to its end, if it is not found by time."""
    expected = [] if part is None else sorted({pts for pts in packets.pts if part.contains(pts)})
    if part is not None and expected:
        before = sorted({pts for pts in packets.pts if pts < part.first})
        seek = _seek_ticks(packets, part.first, decoder, nominal=nominal, by_pts=seeks_by_pts)
        frames = decoder.decode(partial(look, before), seek=seek, part=part)
        if expected == list(frames.pts):
            return frames, before
        log.info("part_not_found_by_time", expected=len(expected), frames=len(frames.pts))
    until = None
    if part is not None and part.stop is not None and packets.pts:
        # Timestamps that have to be repaired may be late.
        until = TickRange(-(2**62), part.stop + ceil(LATE_SECONDS / decoder.video.time_base))
    return decoder.decode(partial(look, ()), seek=None, part=until), ()


def _of_frames(differences: Sequence[float], first: int, stop: int) -> Sequence[float]:
    """Those of these frames; the filter that compares frames passes over the first, and may be behind."""
    if not differences:
        return ()
    found = [0.0, *differences][first:stop]
    return [*found, *([0.0] * (stop - first - len(found)))]


def _last_frame_ticks(packets: Packets, pts: Sequence[int], video: VideoStream, *, nominal: int) -> int:
    """How long the last frame is shown."""
    last = packets.last_duration(pts[-1])
    if last <= 1 and len(pts) == video.frames:
        # The container may state the video's end if the packets do not: in AVI they always last a tick.
        times, _ = increasing_timestamps(pts, nominal=nominal)
        last = round(video.duration_seconds / video.time_base) - (times[-1] - times[0])
    if last <= 0:
        times, _ = increasing_timestamps(pts, nominal=nominal)
        last = max(1, round((times[-1] - times[0]) / (len(times) - 1))) if len(times) > 1 else nominal
    return last


def _told_warnings(complaints: str, video: VideoStream, scan: FrameScan, *, nominal: int) -> list[str]:
    """Warnings from the lines that ffmpeg wrote to stderr, and from what the container promises."""
    promised = video.declared_frames
    is_whole = scan.expected_frames is None
    if (is_whole and promised is not None and promised > video.frames) or _CUT_OFF_SIGNS.search(complaints):
        return [CUT_OFF_WARNING]
    if _tell_of_damage(complaints, video.codec) or (
        _OUT_OF_TURN_SIGNS.search(complaints) and _misses_frames(scan.part, nominal=nominal)
    ):
        return [DAMAGE_WARNING]
    return []


def _seek_ticks(
    packets: Packets, first: int, decoder: FrameDecoder, *, nominal: int, by_pts: bool
) -> int | None:
    """Where to start decoding for the frame at `first`: a keyframe some seconds before it, which even an inexact seek
    finds early enough; None for the file's start.
    """
    if decoder.deinterlacing is not None:
        deinterlacing = decoder.deinterlacing
        first -= (deinterlacing.pictures_before + deinterlacing.pictures_per_frame) * nominal
    wanted = floor(first - EARLIER_SEEK_SECONDS / decoder.video.time_base)
    found = bisect_right(packets.keyframes, wanted, key=lambda keyframe: keyframe[0]) - 1
    return packets.keyframes[found][0 if by_pts else 1] if found > 0 else None


def _tell_of_damage(complaints: str, codec: str) -> bool:
    """Whether ffmpeg, or a decoder of `codec`, complains of damage in the lines that ffmpeg wrote to stderr."""
    decoders = "|".join(re.escape(name) for name in VIDEO_DECODERS[codec])
    error = re.compile(rf"\[(?:{decoders}) @ [^\]]*\] \[error\]")
    lines = [line for line in complaints.splitlines() if not _HARMLESS_ERROR.search(line)]
    return any(error.match(line) or _DAMAGE_SIGNS.search(line) for line in lines)


def _misses_frames(timeline: SourceTimeline, *, nominal: int) -> bool:
    """Whether there is a gap among the frames, `nominal` ticks apart, that is not a jump of the clock."""
    longest = LONGEST_LOSS_SECONDS / timeline.time_base
    return any(1.5 * nominal < after - before <= longest for before, after in pairwise(timeline.pts))
