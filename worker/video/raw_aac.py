"""Finds sound that changes although the file describes it once, as ffmpeg's concat demuxer joins AAC.

Where the channels change decoders are silent. The first element of a packet tells one channel from a pair of them
(ISO/IEC 14496-3, 4.4.2.1): a description has one order of elements. One channel and 5.1 begin alike, but a decoder of
the former refuses the latter. Where the sampling rate changes, the pitch is wrong, and packets are spaced otherwise.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence, Set
from pathlib import Path
from types import TracebackType
from typing import Any

from app.platform.errors import FfmpegError, FfmpegKilled, FfmpegMissing, FfmpegTimeout
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.ffprobe_output import integer
from app.platform.media.file_listing import FileListing
from app.platform.media.recognition import is_encrypted
from worker.video.opus_layouts import opus_warnings
from worker.video.sound_headers import AAC_RATES
from worker.video.sound_runs import Run, read_sound_runs

# Of those that ffprobe names, the ones whose packets begin with an element's kind, of three bits.
PROFILES = ("Main", "LC", "HE-AAC", "HE-AACv2")
SINGLE, PAIR = 0, 1
# Fewer are chance or damage.
MIN_PACKETS = 3
# Matroska's block: the track's number, two bytes of time, flags with the kind of lacing in two bits.
BLOCK_HEADER_BYTES, LACING_BITS = 4, 0x06
# Of packets whose spacing tells a rate, which it must do more than once, to so much of it.
SPACED_PACKETS, MIN_SPACINGS, SPACING_TOLERANCE = 16, 2, 0.02
AAC_SAMPLES = 1024
# Where a track of one channel is decoded for a look, in as many packets each.
SPOTS, SPOT_PACKETS = 24, 3
_REFUSED_CHANNELS = re.compile(r"\[error\] channel element \d+\.\d+ is not allocated")
RATE_NOT_DESCRIBED = (
    "The sampling rate of a sound track changes on the way, but the file describes it once: from there on its pitch is "
    "wrong, with the input as with the output."
)
CHANGE_NOT_DESCRIBED = (
    "The channels of a sound track change on the way, but the file describes them once: from there on players are "
    "silent, with the input as with the output."
)


class PacketSpacing:
    """Counts the sampling rates by which a track's packets are spaced."""

    def __init__(self) -> None:
        self._start = self._last = 0.0
        self._count = 0
        self._rates: Counter[int] = Counter()

    def see(self, at: float) -> None:
        """Counts a packet at that time, in seconds. Gaps, and overlaps, tell nothing."""
        step = at - self._last
        usual = (self._last - self._start) / self._count if self._count else step
        is_even = step > 0 and usual / 1.5 < step < usual * 1.5
        self._last = at
        if not is_even:
            self._start, self._count = at, 0
            return
        self._count += 1
        if self._count == SPACED_PACKETS:
            found = AAC_SAMPLES * self._count / (at - self._start)
            nearest = min(AAC_RATES, key=lambda rate: abs(rate - found))
            if abs(nearest - found) < SPACING_TOLERANCE * nearest:
                self._rates[nearest] += 1
            self._start, self._count = at, 0

    def changes(self) -> bool:
        return sum(count >= MIN_SPACINGS for count in self._rates.values()) > 1


class FirstElements:
    """Counts the first elements of a file's AAC tracks, and how their packets are spaced, for as long as it is entered.

    `streams`, `format_name`: by ffprobe. Of containers that put a header before each packet it counts nothing.
    """

    def __init__(self, path: Path, streams: Sequence[dict[str, Any]], *, format_name: str) -> None:
        names = format_name.split(",")
        self._header_bytes = BLOCK_HEADER_BYTES if "matroska" in names else 0
        is_raw = "mov" in names or "matroska" in names
        self._counts: dict[int, Counter[int]] = {
            int(stream["index"]): Counter()
            for stream in streams
            if is_raw
            and stream.get("codec_name") == "aac"
            and stream.get("profile") in PROFILES
            and not is_encrypted(stream)
        }
        self._spacings = {index: PacketSpacing() for index in self._counts}
        self._single = {int(one["index"]) for one in streams if integer(one, "channels") == 1}
        self._file = path.open("rb", buffering=0)

    def __enter__(self) -> "FirstElements":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def see(self, index: int, place: int, at: float) -> None:
        """Counts the packet of the stream `index` that ffprobe found at byte `place`, at `at` seconds."""
        if (counts := self._counts.get(index)) is None:
            return
        self._spacings[index].see(at)
        self._file.seek(place)
        data = self._file.read(self._header_bytes + 1)
        if len(data) <= self._header_bytes or (self._header_bytes and data[-2] & LACING_BITS):
            return
        counts[data[-1] >> 5] += 1

    def changing(self) -> Set[int]:
        """The streams whose packets begin with one channel here, with two there."""
        return {
            index
            for index, counts in self._counts.items()
            if min(counts[SINGLE], counts[PAIR]) >= MIN_PACKETS
        }

    def changing_rates(self) -> Set[int]:
        """The streams whose packets are spaced by two sampling rates."""
        return {index for index, spacing in self._spacings.items() if spacing.changes()}

    def single(self) -> Set[int]:
        """The streams of one channel."""
        return self._single & self._counts.keys()


def read_sound_packets(
    runner: FfmpegRunner,
    path: Path,
    streams: Sequence[dict[str, Any]],
    *,
    format_name: str,
    cancelled: Callable[[], bool],
    listing: FileListing | None = None,
) -> tuple[dict[int, list[Run]], Set[int], tuple[str, ...]]:
    """What `read_sound_runs` returns, and warnings, of the same reading."""
    with FirstElements(path, streams, format_name=format_name) as elements:
        runs, described_anew = read_sound_runs(
            runner, path, cancelled=cancelled, on_packet=elements.see, listing=listing
        )
    warnings = []
    if elements.changing() - described_anew or any(
        _refuses_channels(runner, path, index, runs[index])
        for index in elements.single() - described_anew
        if index in runs
    ):
        warnings.append(CHANGE_NOT_DESCRIBED)
    if elements.changing_rates() - described_anew:
        warnings.append(RATE_NOT_DESCRIBED)
    if format_name == "mpegts" and any(stream.get("codec_name") == "opus" for stream in streams):
        warnings += opus_warnings(path)
    return runs, described_anew, tuple(warnings)


def _refuses_channels(runner: FfmpegRunner, path: Path, index: int, runs: Sequence[Run]) -> bool:
    """Whether a decoder of one channel refuses the packets at some spot of the track, because they have more."""
    start, length = runs[0][0], runs[-1][1] - runs[0][0]
    spots = (start + length * (2 * number + 1) / (2 * SPOTS) for number in range(SPOTS))
    intervals = ",".join(f"{spot:.3f}%+#{SPOT_PACKETS}" for spot in spots)
    chosen = ("-select_streams", str(index), "-read_intervals", intervals, "-show_entries", "frame=pts")
    try:
        _answer, said = runner.probe_with_stderr(path, *chosen)
    except (FfmpegTimeout, FfmpegKilled, FfmpegMissing):
        raise
    except FfmpegError as error:
        said = error.detail or ""
    return _REFUSED_CHANNELS.search(said) is not None
