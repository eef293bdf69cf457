"""The count and the timestamps of a video's packets, by demuxing alone, in little memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from app.platform.errors import FfmpegError, FfmpegKilled, FfmpegMissing, FfmpegTimeout, NotAVideo

from .clock import MICROSECONDS, EpochReader
from .ffmpeg import FfmpegRunner
from .ffprobe_output import KnownLines, ScannedLines, disposition, fraction
from .file_listing import PACKET_ENTRIES, UNKNOWN
from .info import PacketShifts, PacketSpacings
from .limits import MediaLimits, check_input_frames, check_sound_gaps, check_span, check_subtitles
from .recognition import ENCRYPTED
from .whitelists import TEXT_SUBTITLES

# The flag of packets that common encryption (ISO/IEC 23001-7) has made unreadable.
ENCRYPTION_SIDE_DATA = "Encryption info"
# A packet that ends a sequence and holds no picture, as ffprobe prints its size.
SEQUENCE_CODECS = ("mpeg1video", "mpeg2video")
SEQUENCE_END_BYTES = "4"
STEADY_KINDS = ("video", "audio")
# Sound may begin earlier and end later than the longest video.
SPAN_SLACK_SECONDS = 60
# Messages of the MP4 and Matroska demuxers about a truncated file.
CUT_OFF_SIGNS = ("partial file", "File ended prematurely")


@dataclass(frozen=True, kw_only=True)
class PacketSummary:
    """A summary of all packets of a video stream; timestamps in ticks of its time base, as if they never started again.

    `frames`: packets that will be shown, 1 or more; `discarded`: packets that an edit list keeps only for decoding.
    `start_pts`, `last_pts`: the smallest and largest timestamp shown. `last_duration`: the duration of the packet at
    `last_pts`, 0 if it has none; `is_last_uncertain`: that one may be until the packet that is decoded next, for others
    follow it and durations differ. `is_timed`: every packet has a pts. `shifts`, `spacings`: see MediaInfo.
    `ends_abruptly`: the demuxer reached the end of the file where it expected more.
    """

    frames: int
    discarded: int
    start_pts: int
    last_pts: int
    last_duration: int
    is_last_uncertain: bool
    is_timed: bool
    shifts: PacketShifts
    spacings: PacketSpacings
    ends_abruptly: bool


def scan_packets(runner: FfmpegRunner, path: Path) -> ScannedLines:
    """Each packet of a file as a line of `file_listing.PACKET_FIELDS` and kinds of side data."""
    return runner.scan_lines(path, "-show_entries", PACKET_ENTRIES, "-of", "csv=p=0")


def summarize_packets(
    scanned: ScannedLines | KnownLines,
    streams: Sequence[dict[str, Any]],
    *,
    stream_index: int,
    restarts: bool,
    limits: MediaLimits,
) -> PacketSummary | None:
    """Read all packets of a file with these streams (as ffprobe shows them); None if no packet of the video is shown.

    `scanned`: from `scan_packets` or a listing. `restarts`: whether the format allows for timestamps that start
    again. A packet without a pts (AVI, MPEG-PS) counts at its dts.

    Raises NotAVideo for an encrypted file, LimitExceeded as soon as the frames, or the span of any stream, exceed a
    limit, so that endless packets cost little, and what FfmpegProcess.wait raises. A failure of the demuxer after the
    first frame is not raised: it makes `ends_abruptly` true.
    """
    tally = _PacketTally(streams, stream_index=stream_index, restarts=restarts, limits=limits)
    failed = False
    with scanned as lines:
        try:
            for line in lines:
                fields = line.split(",")
                if ENCRYPTION_SIDE_DATA in fields:
                    raise NotAVideo(ENCRYPTED)
                tally.add(fields)
        except (FfmpegTimeout, FfmpegKilled, FfmpegMissing):
            raise
        except FfmpegError:
            if tally.frames == 0:
                raise
            failed = True
        said = lines.stderr_tail
    if tally.frames == 0:
        return None
    extents = tally.epochs.extents()
    return PacketSummary(
        frames=tally.frames,
        discarded=tally.discarded,
        start_pts=extents[0].start,
        last_pts=extents[-1].last,
        last_duration=extents[-1].last_duration,
        is_last_uncertain=tally.is_last_uncertain,
        is_timed=tally.is_timed,
        shifts=tally.epochs.packet_shifts(),
        spacings=tally.epochs.packet_spacings(),
        ends_abruptly=failed or any(sign in said for sign in CUT_OFF_SIGNS),
    )


class _PacketTally:
    """Counts packets against the limits."""

    def __init__(
        self, streams: Sequence[dict[str, Any]], *, stream_index: int, restarts: bool, limits: MediaLimits
    ) -> None:
        self.frames = self.discarded = 0
        self.is_timed = True
        self._video = stream_index
        self._restarts = restarts
        self._has_sequences = any(
            stream["index"] == stream_index and stream.get("codec_name") in SEQUENCE_CODECS
            for stream in streams
        )
        self._limits = limits
        self._video_end = 0
        self._durations: set[int | None] = set()
        self._latest_pts = self._newest_pts = -(2**63)
        self._longest_span = (limits.max_duration_seconds + SPAN_SLACK_SECONDS) * MICROSECONDS
        bases = {stream["index"]: fraction(stream.get("time_base")) for stream in streams}
        bases[stream_index] = bases[stream_index] or Fraction(1)
        self._kinds = {
            stream["index"]: stream.get("codec_type", "data")
            for stream in streams
            if bases[stream["index"]] and not disposition(stream, "attached_pic")
        }
        self._texts = {stream["index"] for stream in streams if stream.get("codec_name") in TEXT_SUBTITLES}
        self._text_bytes = 0
        self.epochs = EpochReader(
            {index: base for index, base in bases.items() if base and index in self._kinds},
            reference=stream_index,
            restarts=restarts,
        )

    @property
    def is_last_uncertain(self) -> bool:
        return len(self._durations) > 1 and self._newest_pts < self._latest_pts

    def add(self, fields: list[str]) -> None:
        """Read one line of ffprobe. Raises LimitExceeded."""
        if len(fields) < 7 or (index := int(fields[0])) not in self._kinds:
            return
        pts, dts, duration = (_ticks(text) for text in fields[1:4])
        is_shown = "D" not in fields[6]
        if index == self._video:
            self.discarded += not is_shown
            is_shown = is_shown and not (self._has_sequences and fields[4] == SEQUENCE_END_BYTES)
            self.frames += is_shown
            if self.frames > self._limits.max_input_frames:
                check_input_frames(self.frames, self._limits)
            self.is_timed = self.is_timed and (pts is not None or not is_shown)
            shown = dts if pts is None else pts
            if shown is None:
                pts = shown = self._video_end
            self._video_end = shown + (duration or 0)
            if len(self._durations) < 2:
                self._durations.add(duration)
            self._newest_pts = shown
            self._latest_pts = max(self._latest_pts, shown)
        if index in self._texts:
            size_bytes = _ticks(fields[4]) or 0
            self._text_bytes += size_bytes
            check_subtitles(size_bytes=size_bytes, total_bytes=self._text_bytes)
        kind = self._kinds[index]
        self.epochs.add(
            index,
            pts=pts,
            dts=dts,
            duration=duration or 0,
            is_steady=kind in STEADY_KINDS,
            is_shown=is_shown,
            # Only the first frame of a sound packet that holds several has the packet's position.
            is_stated=kind != "audio" or not self._restarts or fields[5] != UNKNOWN,
        )
        if self.epochs.span > self._longest_span:
            check_span(Fraction(self.epochs.span, MICROSECONDS), kind=kind, limits=self._limits)
        if kind == "audio":
            check_sound_gaps(self.epochs.long_gaps[index])


def _ticks(text: str) -> int | None:
    """A timestamp as ffprobe prints it; None for `N/A`."""
    return None if text == UNKNOWN else int(text)
