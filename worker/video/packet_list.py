"""Lists the packets of a video stream as the demuxer tells of them, and the keyframes among them."""

from array import array
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import structlog

from app.platform.errors import Canceled, FfmpegError, FfmpegKilled, FfmpegMissing, FfmpegTimeout
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.probe import VideoStream

log = structlog.get_logger(__name__)

# Lines between two polls of `cancelled`.
LINES_PER_CHECK = 64
# Most frames that a decoder reorders by (ITU-T H.264, max_num_reorder_frames).
MAX_REORDERED_FRAMES = 16


@dataclass(frozen=True, kw_only=True)
class Packets:
    """The video stream's packets, in file order and ticks of its time base. `keyframes`: (pts, dts), by pts.

    Packets that an edit list keeps only for decoding are among the keyframes alone.
    """

    pts: Sequence[int]
    durations: Sequence[int]
    keyframes: Sequence[tuple[int, int]]

    def last_duration(self, pts: int) -> int:
        """Duration of the packet with that `pts`, which is one of the last; 0 if unknown."""
        for index in range(len(self.pts) - 1, -1, -1):
            if self.pts[index] == pts:
                return self.durations[index]
        return 0


@dataclass(frozen=True)
class TickRange:
    """Timestamps from `first` on and before `stop`, in ticks of the video's time base; None: to its end."""

    first: int
    stop: int | None

    def contains(self, pts: int) -> bool:
        return self.first <= pts and (self.stop is None or pts < self.stop)

    def trim(self, unit: int) -> str:
        """Options of ffmpeg's trim filter, of which a tick has `unit`."""
        end = "" if self.stop is None else f":end_pts={unit * self.stop}"
        return f"start_pts={unit * self.first}{end}"


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
                    raise_if_cancelled(cancelled)
                fields = line.split(",")
                if len(fields) < 4:
                    continue
                at, decoded_at = _ticks(fields[0]), _ticks(fields[1])
                if at is None:
                    if decoded_at is None:
                        continue
                    # AVI and MPEG-PS have no pts for reordered frames: this is the latest possible.
                    at = decoded_at + reorder_ticks
                if "K" in fields[3]:
                    keyframes.append((at, at if decoded_at is None else min(at, decoded_at)))
                if "D" not in fields[3]:
                    pts.append(at)
                    durations.append(_ticks(fields[2]) or 0)
        except (FfmpegTimeout, FfmpegKilled, FfmpegMissing):
            raise
        except FfmpegError as error:
            # Of a damaged file, the packets before the damage are used; the decoding pass decides.
            log.warning("packet_scan_incomplete", packets=len(pts), detail=error.detail)
    return Packets(pts=pts, durations=durations, keyframes=sorted(keyframes))


def _ticks(text: str) -> int | None:
    return None if text == "N/A" else int(text)


def raise_if_cancelled(cancelled: Callable[[], bool]) -> None:
    if cancelled():
        raise Canceled()
