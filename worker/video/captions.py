"""Closed captions inside the pictures (ATSC A/53: in user data, and in SEI messages), as a file of texts.

Only ffmpeg's filter `movie` takes captions out of pictures, and it opens files without the limits on users' files. So
it never opens one: the input is decoded under all limits, and encoded as tiny pictures with the same captions, which
another ffmpeg reads from a pipe.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import ffmpeg
import structlog

from app.platform.errors import FfmpegCancelled, FfmpegDiskFull, FfmpegError, FfmpegMissing
from app.platform.media.ffmpeg import FfmpegProcess, FfmpegRunner, Stream
from app.platform.media.limits import MAX_SUBTITLES_BYTES
from worker.video.decoder import UNTAGGED_COLOURS, decoder_options
from worker.video.filter_expressions import seconds_option
from worker.video.plan import RenderPlan
from worker.video.tracks import KeptTrack

log = structlog.get_logger(__name__)

UNREADABLE_WARNING = "Closed captions could not all be read; the others were left out."
KIND_WARNING = "Closed captions of the kind CEA-708 were left out: only those of CEA-608 can be kept."
CHANNELS_WARNING = "Closed captions of further channels (CC2 to CC4), such as other languages, were left out."
CHUNK_BYTES = 1024 * 1024
LEAD_SECONDS = 60
PURPOSE = "reading the captions"
# Timestamps in the file of texts may not be below 0, nor above ten hours.
SHIFT_SECONDS = Fraction(3600)
# The smallest pictures that x264 takes, with captions for their side data.
TINY = f"{UNTAGGED_COLOURS},scale=16:16:flags=neighbor,format=yuv420p"
TINY_CODING = {"c:v": "libx264", "preset": "ultrafast", "bf": 0, "a53cc": 1, "enc_time_base": "1/90000"}
CAPTIONS_OF_STDIN = r"movie=filename=pipe\\:0:format_name=nut:format_opts=protocol_whitelist=pipe[out0+subcc]"
# Of ASS: a text's times, what is between them and the text, and the text.
_TEXT = re.compile(r"(Dialogue: \d+),(\d+):(\d+):([\d.]+),(\d+):(\d+):([\d.]+),((?:[^,]*,){6})(.*)")
# Places on the picture, which MP4's texts have not, and spaces that its encoder does not know.
_PLACE, _SPACE = re.compile(r"\{\\an7\}|\{\\pos\([\d,]*\)\}"), r"\h"


class CaptionKinds:
    """Finds captions in coded pictures that are not kept: those of CEA-708, and of CEA-608 those of CC2 to CC4.

    Of each three bytes of captions the first tells whether the others are valid, and their kind (CTA-708, 4.3).
    """

    _MESSAGE = re.compile(rb"GA94\x03[\x40-\x5f].", re.DOTALL)
    _MOST_BYTES = 3 * 31
    _VALID = 4
    # By field, the first bytes of commands to other channels than CC1.
    _COMMANDS = ((0x1C,), (0x14, 0x15, 0x1C, 0x1D))

    def __init__(self) -> None:
        self._before = b""
        self.has_cea_708 = False
        self.has_other_channels = False

    def feed(self, piece: bytes) -> None:
        data = self._before + piece
        for match in self._MESSAGE.finditer(data):
            count = data[match.end() - 2] & 31
            # Without the bytes that keep start codes out of a message.
            triples = data[match.end() : match.end() + 2 * self._MOST_BYTES].replace(b"\0\0\3", b"\0\0")
            for at in range(0, min(3 * count, len(triples) - 2), 3):
                self._see(*triples[at : at + 3])
        self._before = data[-2 * self._MOST_BYTES - 7 :]

    def _see(self, kind: int, first: int, second: int) -> None:
        if not kind & self._VALID:
            return
        if kind & 2:
            self.has_cea_708 = True
        elif first.bit_count() % 2:
            is_to_another = first & 127 in self._COMMANDS[kind & 1]
            self.has_other_channels |= is_to_another and 0x20 <= second & 127 < 0x30


@dataclass(frozen=True, kw_only=True)
class Captions:
    """An ASS file of texts, at their times in the output."""

    path: Path
    track: KeptTrack

    def input(self, runner: FfmpegRunner) -> Stream:
        return runner.own_file_input(self.path, demuxer="ass")["s:0"]


def write_captions(
    runner: FfmpegRunner,
    source: Path,
    streams: Sequence[Mapping[str, Any]],
    directory: Path,
    *,
    render: RenderPlan,
    cancelled: Callable[[], bool],
) -> tuple[Captions | None, tuple[str, ...]]:
    """Write the video's captions to `directory`; None if it has none that can be kept. Returns warnings, too.

    `streams`: all of the source's, by ffprobe. Raises FfmpegCancelled once `cancelled` returns True, FfmpegDiskFull and
    FfmpegMissing.
    """
    if not render.has_captions:
        return None, ()
    raw, path, kinds = directory / "decoded.ass", directory / "captions.ass", CaptionKinds()
    raw.touch()
    shift = seconds_option(SHIFT_SECONDS - render.input_start_seconds + render.skipped_seconds)
    # What a part's first pictures show was sent before them.
    earlier = max(Fraction(0), render.skipped_seconds - LEAD_SECONDS)
    options = decoder_options(None) | ({"ss": seconds_option(earlier)} if earlier else {})
    pictures = runner.input(source, itsoffset=shift, **options)[str(render.stream_index)]
    end = Fraction(render.offset_ticks + render.total_ticks, render.timescale)
    until = SHIFT_SECONDS + render.skipped_seconds + end
    warnings = []
    try:
        _decode(runner, pictures, raw, kinds, cancelled, until=until)
    except (FfmpegCancelled, FfmpegDiskFull, FfmpegMissing):
        raise
    except FfmpegError as error:
        if cancelled():
            # It may have ended by itself, for lack of pictures, before it was stopped.
            raise FfmpegCancelled(str(error), detail=error.detail) from error
        log.warning("captions_unread", detail=error.detail)
        warnings.append(UNREADABLE_WARNING)
    has_texts = False
    with raw.open(encoding="utf-8", errors="replace") as lines, path.open("w", encoding="utf-8") as file:
        for line in lines:
            text = _TEXT.match(line)
            fitted = line if text is None else _fit(text, film_start=until - end, film_end=end)
            has_texts = has_texts or (text is not None and fitted != "")
            file.write(fitted)
    if kinds.has_other_channels:
        warnings.append(CHANNELS_WARNING)
    elif kinds.has_cea_708 and not has_texts and not warnings:
        warnings.append(KIND_WARNING)
    index = 1 + max(int(stream["index"]) for stream in streams)
    track = KeptTrack(index=index, kind="subtitle", is_copied=False, is_default=False, is_captions=True)
    return Captions(path=path, track=track) if has_texts else None, tuple(warnings)


def _decode(
    runner: FfmpegRunner,
    pictures: Stream,
    path: Path,
    kinds: CaptionKinds,
    cancelled: Callable[[], bool],
    *,
    until: Fraction,
) -> None:
    """Write the captions of the pictures before `until`, decoded as the decoder makes them, as ASS."""
    filters = f"{TINY},trim=end={seconds_option(until)}"
    tiny = ffmpeg.output(pictures, "pipe:1", f="nut", vf=filters, fps_mode="passthrough", **TINY_CODING)
    captions = runner.generated_input(CAPTIONS_OF_STDIN, data_field="first", copyts=None)
    texts = runner.output(captions["s:0"], path, f="ass", **{"c:s": "ass"})
    with (
        runner.start(
            texts,
            purpose=PURPOSE,
            stdin=True,
            stdout=False,
            may_wait=False,
            output_bytes=MAX_SUBTITLES_BYTES,
        ) as decoder,
        runner.start(tiny, purpose=PURPOSE, stdin=False, stdout=True, may_wait=False) as encoder,
    ):
        try:
            while not cancelled() and (piece := encoder.stdout.read(CHUNK_BYTES)):
                kinds.feed(piece)
                decoder.write_all(piece)
            encoder.wait(cancelled=cancelled)
        except FfmpegCancelled:
            raise
        except FfmpegError:
            # Pictures before the damage may have captions.
            _finish(decoder, cancelled)
            raise
        _finish(decoder, cancelled)


def _finish(decoder: FfmpegProcess, cancelled: Callable[[], bool]) -> None:
    decoder.close_stdin()
    decoder.wait(cancelled=cancelled)


def _fit(text: re.Match[str], *, film_start: Fraction, film_end: Fraction) -> str:
    """A text's line as the output has it, which begins at `film_start` of the text's times, and lasts to `film_end`;
    empty if it is not shown there.
    """
    head, *times, fields, words = text.groups()
    start, end = (
        min(
            film_end,
            max(Fraction(0), 3600 * int(hours) + 60 * int(minutes) + Fraction(seconds) - film_start),
        )
        for hours, minutes, seconds in (times[:3], times[3:])
    )
    if start == end:
        return ""
    return (
        f"{head},{_ass_time(start)},{_ass_time(end)},{fields}{_PLACE.sub('', words).replace(_SPACE, ' ')}\n"
    )


def _ass_time(seconds: Fraction) -> str:
    minutes, hundredths = divmod(round(100 * seconds), 6000)
    return f"{minutes // 60}:{minutes % 60:02d}:{hundredths // 100:02d}.{hundredths % 100:02d}"
