"""Decodes a video stream once, as its segments will be decoded, and lists the frames.

ffmpeg's `framecrc` muxer writes a line per frame with its timestamp and checksum, so that memory does not grow and a
segment can verify the frames that it decodes.
"""

import time
from array import array
from collections.abc import Callable, MutableSequence, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ffmpeg
import structlog

from app.platform.errors import (
    FfmpegError,
    FfmpegKilled,
    FfmpegMissing,
    FfmpegTimeout,
    PermanentError,
)
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.probe import VideoStream
from worker.inference.frames import FrameFormat
from worker.video.decoder import decoder_options, filter_chain, seek_options
from worker.video.deinterlace import Deinterlacing
from worker.video.frame_differences import read_difference, with_differences
from worker.video.packet_list import LINES_PER_CHECK, TickRange, raise_if_cancelled

log = structlog.get_logger(__name__)

# ffmpeg's time bases are of 32 bits.
MAX_DENOMINATOR = 2**31 - 1
# Least time between two looks at the frames so far, and the largest part of all time that they take.
LOOK_SECONDS, LOOK_SHARE = 2.0, 0.1


@dataclass(kw_only=True)
class DecodedFrames:
    """Timestamp and checksum of each frame, whether one was left interlaced, and ffmpeg's messages.

    `differences`: of a film's frames but the first, each from the one before, in codes of 8 bits.
    """

    pts: MutableSequence[int]
    checksums: MutableSequence[int]
    differences: MutableSequence[float]
    has_interlaced: bool = False
    complaints: str = ""


@dataclass(frozen=True, kw_only=True)
class FrameDecoder:
    """Decodes one video stream as its segments will be decoded."""

    runner: FfmpegRunner
    path: Path
    video: VideoStream
    source: FrameFormat
    decoded_pix_fmts: Sequence[str]
    deinterlacing: Deinterlacing | None
    expansion: str | None
    decoder: str | None
    cancelled: Callable[[], bool]

    def decode(
        self, look: Callable[[DecodedFrames], None], *, seek: int | None, part: TickRange | None
    ) -> DecodedFrames:
        """Decode from the keyframe at `seek` on, or from the file's start, the frames of the part. `look` gets those
        so far, now and then.
        """
        unit = 2 if self._marks_interlaced else 1
        time_base = f"{self.video.time_base.numerator}/{unit * self.video.time_base.denominator}"
        command = self._command(time_base, unit=unit, seek=seek, part=part)
        frames = DecodedFrames(pts=(pts := array("q")), checksums=array("L"), differences=array("d"))
        look_at = time.monotonic() + LOOK_SECONDS
        # Decoding that starts in the middle of a stream begins with complaints, long before the part's first frame.
        at_start = "" if seek is None else None
        with self.runner.start(
            command, purpose="reading the video", stdin=False, stdout=True, may_wait=False
        ) as process:
            for line in process.lines():
                if len(pts) % LINES_PER_CHECK == 0:
                    raise_if_cancelled(self.cancelled)
                    if pts and not frames.has_interlaced and (began := time.monotonic()) >= look_at:
                        look(frames)
                        ended = time.monotonic()
                        look_at = ended + max(LOOK_SECONDS, (ended - began) * (1 / LOOK_SHARE - 1))
                if line.startswith("#"):
                    if line.startswith("#tb 0:") and line.split(":", 1)[1].strip() != time_base:
                        raise FfmpegError(
                            "The video program uses a different time base than requested.", detail=line
                        )
                    continue
                if at_start is None:
                    at_start = process.stderr_tail
                self._read(line, frames, unit=unit)
            try:
                process.wait()
            except (FfmpegTimeout, FfmpegKilled, FfmpegMissing):
                raise
            except FfmpegError as error:
                if not pts and seek is None:
                    raise PermanentError(
                        "None of the video's frames can be decoded.", detail=error.detail
                    ) from error
                log.warning("decoding_incomplete", frames=len(pts), detail=error.detail)
            frames.complaints = process.stderr_tail.removeprefix(at_start or "")
        return frames

    @property
    def _marks_interlaced(self) -> bool:
        return self.deinterlacing is None and 2 * self.video.time_base.denominator <= MAX_DENOMINATOR

    def _command(self, time_base: str, *, unit: int, seek: int | None, part: TickRange | None) -> list[str]:
        chain = filter_chain(
            time_base=self.video.time_base,
            source=self.source,
            decoded_pix_fmts=self.decoded_pix_fmts,
            deinterlacing=self.deinterlacing,
            expansion=self.expansion,
            marks_interlaced=self._marks_interlaced,
            trim=None if part is None else part.trim(unit),
        )
        options: dict[str, Any] = {
            "vcodec": "rawvideo",
            "fps_mode": "passthrough",
            "enc_time_base": time_base,
            "avoid_negative_ts": "disabled",
            "f": "framecrc",
        }
        read_from = {} if seek is None else seek_options(seek * self.video.time_base)
        decoded = self.runner.input(
            self.path, **decoder_options(self.deinterlacing, self.decoder), **read_from
        )
        command: list[str] = ffmpeg.get_args(
            ffmpeg.output(decoded[str(self.video.index)], "pipe:1", **options)
        )
        at = command.index("-map")
        is_film = self.deinterlacing is not None and self.deinterlacing.film_rate is not None
        filtered = with_differences if is_film else _filtered
        return [*command[:at], *filtered(chain, stream=command[at + 1]), *command[at + 2 :]]

    def _read(self, line: str, frames: DecodedFrames, *, unit: int) -> None:
        # stream, dts, pts, duration, size, checksum, side data
        fields = line.split(",")
        checksum = int(fields[5], 16)
        if fields[0] == "1":
            frames.differences.append(read_difference(checksum))
            return
        if int(fields[4]) != self.source.frame_bytes:
            raise FfmpegError("The video program delivers frames of a different size.", detail=line)
        ticks, is_marked = divmod(int(fields[2]), unit)
        frames.pts.append(ticks)
        frames.checksums.append(checksum)
        frames.has_interlaced = frames.has_interlaced or is_marked > 0


def _filtered(chain: str, *, stream: str) -> list[str]:
    return ["-map", stream, "-vf", chain]
