"""The formats of sound tracks in the file: whether there is any sound, and whether its format changes.

A copied track has one description, so sound after a change would play as silence or noise; a converted one
has one layout. AAC in transport streams, LATM, AC-3, E-AC-3, DTS, MP2 and MP3 have a header before each frame
(ISO/IEC 14496-3, ETSI TS 102 366 and 102 114, ISO/IEC 11172-3 and 13818-3). Headers are found by their first
bits alone: a false one within a frame never occurs several times in a row.
"""

import re
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ffmpeg
import structlog

from app.platform.errors import FfmpegCancelled, FfmpegError, FfmpegKilled, FfmpegMissing, FfmpegTimeout
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.ffprobe_output import integer

log = structlog.get_logger(__name__)

# Fewer headers of one format in a row are chance or damage.
MIN_HEADERS = 3
USUAL_RATES = (44_100, 48_000)
CHUNK_BYTES = 1024 * 1024
AAC_RATES = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000)
_AAC_CHANNELS = (0, 1, 2, 3, 4, 5, 6, 8)
_AC3_RATES = (48_000, 44_100, 32_000)
_AC3_CHANNELS = (2, 1, 2, 3, 3, 4, 4, 5)
_AC3_LAST_VERSION = 10
_DTS_RATES = (0, 8_000, 16_000, 32_000, 0, 0, 11_025, 22_050, 44_100, 0, 0, 12_000, 24_000, 48_000, 0, 0)
_DTS_CHANNELS = (1, 2, 2, 2, 2, 3, 3, 4, 4, 5)
_MPEG_RATES = (44_100, 48_000, 32_000)
# By the two bits of the version: MPEG 2.5, none, 2 and 1.
_MPEG_RATE_DIVISORS = (4, 1, 2, 1)
_MPEG_MONO = 3


@dataclass(frozen=True, order=True)
class SoundFormat:
    """Channels without that for low frequencies, 0 if the header does not tell; and samples a second."""

    channels: int
    sample_rate: int


def _adts(header: bytes) -> SoundFormat | None:
    return _aac(header[2] >> 2 & 15, (header[2] & 1) << 2 | header[3] >> 6)


def _latm(header: bytes) -> SoundFormat | None:
    # After five bits of the object's type.
    bits = int.from_bytes(header[5:7], "big")
    return _aac(bits >> 7 & 15, bits >> 3 & 15)


def _aac(rate: int, channels: int) -> SoundFormat | None:
    is_known = rate < len(AAC_RATES) and channels < len(_AAC_CHANNELS)
    return SoundFormat(_AAC_CHANNELS[channels], AAC_RATES[rate]) if is_known else None


def _dts(header: bytes) -> SoundFormat | None:
    rate, arrangement = _DTS_RATES[header[8] >> 2 & 15], (header[7] & 15) << 2 | header[8] >> 6
    is_known = rate and arrangement < len(_DTS_CHANNELS)
    return SoundFormat(_DTS_CHANNELS[arrangement], rate) if is_known else None


def _ac3(header: bytes) -> SoundFormat | None:
    rate = header[4] >> 6
    if header[5] >> 3 <= _AC3_LAST_VERSION:
        return (
            None if rate == len(_AC3_RATES) else SoundFormat(_AC3_CHANNELS[header[6] >> 5], _AC3_RATES[rate])
        )
    if header[2] >> 6 or rate == len(_AC3_RATES):
        # A frame of further channels, or one at half the rate, which no encoder writes.
        return None
    return SoundFormat(_AC3_CHANNELS[header[4] >> 1 & 7], _AC3_RATES[rate])


def _mpeg(header: bytes) -> SoundFormat | None:
    rate, bits = header[2] >> 2 & 3, header[2] >> 4
    if rate == len(_MPEG_RATES) or bits in (0, 15):
        return None
    divisor = _MPEG_RATE_DIVISORS[header[1] >> 3 & 3]
    return SoundFormat(1 if header[3] >> 6 == _MPEG_MONO else 2, _MPEG_RATES[rate] // divisor)


_AC3_HEADER = (re.compile(rb"\x0b\x77.{5}", re.DOTALL), _ac3)
# By ffprobe's name of the codec: the shape of a header, and its reader.
_HEADERS: dict[str, tuple[re.Pattern[bytes], Callable[[bytes], SoundFormat | None]]] = {
    "aac": (re.compile(rb"\xff[\xf0\xf1\xf8\xf9]..", re.DOTALL), _adts),
    # With its own description, of one program.
    "aac_latm": (re.compile(rb"\x56[\xe0-\xff].\x20\x00..", re.DOTALL), _latm),
    "ac3": _AC3_HEADER,
    "dts": (re.compile(rb"\x7f\xfe\x80\x01.{5}", re.DOTALL), _dts),
    "eac3": _AC3_HEADER,
    "mp2": (re.compile(rb"\xff[\xf4\xf5\xfc\xfd]..", re.DOTALL), _mpeg),
    "mp3": (re.compile(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb]..", re.DOTALL), _mpeg),
}


class FormatReader:
    """Collects the formats of one track from its coded bytes, which come in pieces of any size."""

    def __init__(self, codec: str) -> None:
        self._pattern, self._read = _HEADERS[codec]
        self._current: SoundFormat | None = None
        self._in_a_row = 0
        self.formats: set[SoundFormat] = set()

    def feed(self, piece: bytes) -> None:
        # A header across two pieces is passed over.
        for match in self._pattern.finditer(piece):
            if (found := self._read(match[0])) is None:
                continue
            self._in_a_row = self._in_a_row + 1 if found == self._current else 1
            self._current = found
            if self._in_a_row == MIN_HEADERS:
                self.formats.add(found)


def sound_formats(
    runner: FfmpegRunner,
    path: Path,
    streams: Sequence[dict[str, Any]],
    *,
    format_name: str,
    described_anew: Set[int],
    cancelled: Callable[[], bool],
) -> dict[int, Set[SoundFormat]]:
    """The formats of each sound track that has headers, or is in `described_anew`, by its index, from one reading each.

    `streams`, `format_name`: by ffprobe. Tracks that cannot be read are left out. Raises FfmpegCancelled, FfmpegKilled,
    FfmpegTimeout and FfmpegMissing.
    """
    formats: dict[int, Set[SoundFormat]] = {}
    for stream in streams:
        index, codec = int(stream["index"]), stream.get("codec_name")
        # In other containers a description of the whole track stands for the headers of AAC.
        has_headers = codec in _HEADERS and (codec != "aac" or format_name in ("mpegts", "mpeg"))
        if (has_headers or index in described_anew) and integer(stream, "channels"):
            try:
                formats[index] = (
                    _read_formats(runner, path, index, FormatReader(str(codec)), cancelled)
                    if has_headers
                    else _described_formats(runner, path, stream)
                )
            except (FfmpegCancelled, FfmpegKilled, FfmpegMissing, FfmpegTimeout):
                raise
            except FfmpegError as error:
                log.warning("sound_formats_unread", stream=index, detail=error.detail)
    return formats


def _described_formats(runner: FfmpegRunner, path: Path, stream: dict[str, Any]) -> Set[SoundFormat]:
    """The formats of a track that is described anew in its course: FLV recordings of streams, edited MP4.

    A new description shows only in what is decoded, and there without the rate, so it stands for each usual one.
    """
    chosen = ("-select_streams", str(stream["index"]), "-show_entries", "frame=channels", "-of", "csv=p=0")
    lines = runner.scan_lines(path, *chosen)
    channels = {int(fields[0]) for line in lines if (fields := line.split(","))[0].isdecimal()}
    rates = {integer(stream, "sample_rate"), *USUAL_RATES}
    return {SoundFormat(one, each) for one in channels for each in rates}


def _read_formats(
    runner: FfmpegRunner, path: Path, index: int, reader: FormatReader, cancelled: Callable[[], bool]
) -> Set[SoundFormat]:
    stream = ffmpeg.output(runner.input(path)[str(index)], "pipe:1", f="data", codec="copy")
    with runner.start(stream, purpose="reading the sound", stdin=False, stdout=True) as process:
        while not cancelled() and (piece := process.stdout.read(CHUNK_BYTES)):
            reader.feed(piece)
        process.wait(cancelled=cancelled)
    return reader.formats
