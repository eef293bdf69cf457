"""Finds AAC tracks whose channels change although the file describes them once, as ffmpeg's concat demuxer joins them.

Decoders are silent from there on. The first element of a packet tells one channel from a pair of them (ISO/IEC 14496-3,
4.4.2.1): a description has one order of elements.
"""

from collections import Counter
from collections.abc import Callable, Sequence, Set
from pathlib import Path
from types import TracebackType
from typing import Any

from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.recognition import is_encrypted
from worker.video.sound_runs import Run, read_sound_runs

# Of those that ffprobe names, the ones whose packets begin with an element's kind, of three bits.
PROFILES = ("Main", "LC", "HE-AAC", "HE-AACv2")
SINGLE, PAIR = 0, 1
# Fewer are chance or damage.
MIN_PACKETS = 3
# Matroska's block: the track's number, two bytes of time, flags with the kind of lacing in two bits.
BLOCK_HEADER_BYTES, LACING_BITS = 4, 0x06
CHANGE_NOT_DESCRIBED = (
    "The channels of a sound track change on the way, but the file describes them once: from there on players are "
    "silent, with the input as with the output."
)


class FirstElements:
    """Counts the first elements of a file's AAC tracks, for as long as it is entered.

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
        self._file = path.open("rb", buffering=0)

    def __enter__(self) -> "FirstElements":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def see(self, index: int, at: int) -> None:
        """Counts the packet of the stream `index` that ffprobe found at byte `at`."""
        if (counts := self._counts.get(index)) is None:
            return
        self._file.seek(at)
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


def read_sound_packets(
    runner: FfmpegRunner,
    path: Path,
    streams: Sequence[dict[str, Any]],
    *,
    format_name: str,
    cancelled: Callable[[], bool],
) -> tuple[dict[int, list[Run]], Set[int], tuple[str, ...]]:
    """What `read_sound_runs` returns, and warnings, of the same reading."""
    with FirstElements(path, streams, format_name=format_name) as elements:
        runs, described_anew = read_sound_runs(runner, path, cancelled=cancelled, on_packet=elements.see)
    return runs, described_anew, (CHANGE_NOT_DESCRIBED,) if elements.changing() - described_anew else ()
