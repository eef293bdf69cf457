"""Lists the packets of a video stream as the demuxer tells of them, and the keyframes among them."""

from array import array
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import structlog

from app.platform.errors import Canceled, FfmpegError, FfmpegKilled, FfmpegMissing, FfmpegTimeout
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.ffprobe_output import ScannedLines
from app.platform.media.file_listing import FileListing
from app.platform.media.probe import VideoStream
from worker.video.input_ranges import NOWHERE, PacketPlaces

log = structlog.get_logger(__name__)

# Lines between two polls of `cancelled`.
LINES_PER_CHECK = 64
# Most frames that a decoder reorders by (ITU-T H.264, max_num_reorder_frames).
MAX_REORDERED_FRAMES = 16


@dataclass(frozen=True, kw_only=True)
class Packets:
    """The video stream's packets, in file order and ticks of its time base. `keyframes`: (pts, dts), by pts.

    Packets that an edit list keeps only for decoding are among the keyframes alone. `untimed`: all decoding times if
    the first packet has no pts, as where AVI stores frames in another order than they are shown in. `held_back`,
    `late_ticks`: see `as_decoded`. `places`: of all packets.
    """

    pts: Sequence[int]
    durations: Sequence[int]
    keyframes: Sequence[tuple[int, int]]
    untimed: Sequence[int] = ()
    held_back: int = 0
    late_ticks: int = 0
    places: PacketPlaces = field(default_factory=PacketPlaces)

    def as_decoded(self, first: int, *, nominal: int) -> "Packets":
        """The packets with the decoder's timestamps, of which `first` is the first; the same ones if they have pts.

        A frame gets the time of the packet that was read when it came. So the first packets are held back, and all
        frames late by as much. The last frames come after all packets: they follow `nominal` ticks apart.
        """
        held_back = sum(at < first for at in self.untimed[: MAX_REORDERED_FRAMES + 1])
        if not 0 < held_back <= min(MAX_REORDERED_FRAMES, len(self.untimed) - 1):
            return self
        last = [self.untimed[-1] + nominal * number for number in range(1, held_back + 1)]
        return replace(
            self,
            pts=[*self.untimed[held_back:], *last],
            held_back=held_back,
            late_ticks=first - self.untimed[0],
            places=PacketPlaces(),
        )

    def as_fields(self) -> "Packets":
        """Two packets for each, one for each of its fields, in ticks of half the length."""
        shown = sorted(zip(self.pts, self.durations, strict=False))
        gaps = [after[0] - before[0] for before, after in pairwise(shown)]
        # As ffmpeg's filters have it, the last frame lasts as long as the one before.
        gaps += gaps[-1:] or [duration for _, duration in shown]
        pts, durations = array("q"), array("q")
        for (at, duration), gap in zip(shown, gaps, strict=True):
            pts.extend((2 * at, 2 * at + gap))
            durations.extend((gap, max(0, 2 * duration - gap)))
        return replace(
            self,
            pts=pts,
            durations=durations,
            keyframes=[(2 * at, 2 * decoded_at) for at, decoded_at in self.keyframes],
            held_back=2 * self.held_back,
            late_ticks=2 * self.late_ticks,
            places=self.places.as_fields(),
        )

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

    def later(self, ticks: int) -> "TickRange":
        return TickRange(self.first + ticks, None if self.stop is None else self.stop + ticks)

    def contains(self, pts: int) -> bool:
        return self.first <= pts and (self.stop is None or pts < self.stop)

    def trim(self, unit: int) -> str:
        """Options of ffmpeg's trim filter, of which a tick has `unit`."""
        end = "" if self.stop is None else f":end_pts={unit * self.stop}"
        return f"start_pts={unit * self.first}{end}"


def read_packets(
    runner: FfmpegRunner,
    path: Path,
    video: VideoStream,
    cancelled: Callable[[], bool],
    *,
    listing: FileListing | None = None,
) -> Packets:
    """What the demuxer tells of the video stream. `listing`: the file's, if there is one.

    Raises Canceled when `cancelled` says so.
    """
    reorder_ticks = round(MAX_REORDERED_FRAMES / (video.frame_rate * video.time_base))
    pts, durations, untimed = array("q"), array("q"), array("q")
    keyframes: list[tuple[int, int]] = []
    places = PacketPlaces()
    entries = "packet=pts,dts,duration,size,pos,flags"
    arguments = ["-select_streams", str(video.index), "-show_entries", entries]
    lines: Generator[str] | ScannedLines = (
        runner.scan_lines(path, *arguments, "-of", "csv=p=0")
        if listing is None
        else listing.packets_of(video.index)
    )
    with closing(lines):
        try:
            for number, line in enumerate(lines):
                if number % LINES_PER_CHECK == 0:
                    raise_if_cancelled(cancelled)
                fields = line.split(",")
                at, decoded_at = (_ticks(field) for field in fields[:2]) if len(fields) > 5 else (None, None)
                if decoded_at is not None and (
                    untimed or (at is None and not keyframes and "K" in fields[5])
                ):
                    untimed.append(decoded_at)
                if at is None:
                    if decoded_at is None:
                        continue
                    # AVI and MPEG-PS have no pts for reordered frames: this is the latest possible.
                    at = decoded_at + reorder_ticks
                place = _ticks(fields[4])
                places.add(at, start=NOWHERE if place is None else place, size=_ticks(fields[3]) or 0)
                if "K" in fields[5]:
                    keyframes.append((at, at if decoded_at is None else min(at, decoded_at)))
                if "D" not in fields[5]:
                    pts.append(at)
                    durations.append(_ticks(fields[2]) or 0)
        except (FfmpegTimeout, FfmpegKilled, FfmpegMissing):
            raise
        except FfmpegError as error:
            # Of a damaged file, the packets before the damage are used; the decoding pass decides.
            log.warning("packet_scan_incomplete", packets=len(pts), detail=error.detail)
    return Packets(pts=pts, durations=durations, keyframes=sorted(keyframes), untimed=untimed, places=places)


def _ticks(text: str) -> int | None:
    return None if text == "N/A" else int(text)


def raise_if_cancelled(cancelled: Callable[[], bool]) -> None:
    if cancelled():
        raise Canceled()
