"""Reads closed captions inside the pictures (ATSC A/53: in user data, and in SEI messages): all of them as triples of
bytes with their times, and those of CC1 as a file of texts.

Only ffmpeg's filter `movie` takes captions out of pictures, and it opens files without the limits on users' files. So
it never opens one: the input is decoded under all limits, and encoded as tiny pictures with the same captions, which
another ffmpeg reads from a pipe.
"""

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from struct import Struct
from typing import Any

import ffmpeg
import structlog

from app.platform.errors import FfmpegCancelled, FfmpegDiskFull, FfmpegError, FfmpegMissing
from app.platform.media.codecs import CODECS
from app.platform.media.ffmpeg import FfmpegProcess, FfmpegRunner, Stream
from app.platform.media.limits import MAX_SUBTITLES_BYTES
from app.platform.media.time_range import TimeRange
from worker.video.caption_messages import CEA_708, CLOCK, VALID, TimedTriples, split
from worker.video.caption_pictures import caption_tags
from worker.video.decoder import UNTAGGED_COLOURS, decoder_options
from worker.video.filter_expressions import seconds_option
from worker.video.plan import RenderPlan
from worker.video.tracks import KeptTrack

log = structlog.get_logger(__name__)

UNREADABLE_WARNING = "Closed captions could not all be read; the others were left out."
KIND_WARNING = "Closed captions of the kind CEA-708 were left out: only H.264 and HEVC output can hold them."
CHANNELS_WARNING = (
    "Closed captions of further channels (CC2 to CC4), such as other languages, were left out: only H.264 and HEVC "
    "output can hold them."
)
CHUNK_BYTES = 1024 * 1024
LEAD_SECONDS = 60
PURPOSE = "reading the captions"
# Timestamps in the file of texts may not be below 0, nor above ten hours.
SHIFT_SECONDS = Fraction(3600)
# The smallest pictures that x264 takes, with captions for their side data.
TINY = f"{UNTAGGED_COLOURS},scale=16:16:flags=neighbor,format=yuv420p"
TINY_CODING = {
    **{"c:v": "libx264", "preset": "ultrafast", "bf": 0, "a53cc": 1, "enc_time_base": "1/90000"},
    **{"f": "flv", "flvflags": "no_duration_filesize"},
}
CAPTIONS_OF_STDIN = r"movie=filename=pipe\\:0:format_name=flv:format_opts=protocol_whitelist=pipe[out0+subcc]"
# Of ASS: a text's times, what is between them and the text, and the text.
_TEXT = re.compile(r"(Dialogue: \d+),(\d+):(\d+):([\d.]+),(\d+):(\d+):([\d.]+),((?:[^,]*,){6})(.*)")
# Places on the picture, which MP4's texts have not, and spaces that its encoder does not know.
_PLACE, _SPACE = re.compile(r"\{\\an7\}|\{\\pos\([\d,]*\)\}"), r"\h"


# Time and size in bytes of a picture's triples.
RECORD = Struct(">QI")
# By field, the first bytes of commands of CEA-608 to other channels than CC1.
_OTHER_CHANNELS = ((0x1C,), (0x14, 0x15, 0x1C, 0x1D))


@dataclass(frozen=True, kw_only=True)
class CaptionTexts:
    """An ASS file of texts, at their times in the output."""

    path: Path
    track: KeptTrack

    def input(self, runner: FfmpegRunner) -> Stream:
        return runner.own_file_input(self.path, demuxer="ass")["s:0"]


@dataclass(frozen=True, kw_only=True)
class CaptionTriples:
    """The triples of bytes (see caption_messages.py) of all pictures, in a file of records: time, size, triples.

    In ticks of CLOCK there: `start_ticks` is where the output begins, what precedes `first_ticks` is not in it.
    """

    path: Path
    start_ticks: int
    first_ticks: int

    def read(self) -> Iterator[TimedTriples]:
        """The triples of each picture of the input that has any, and their times in the output, in ticks of CLOCK."""
        with self.path.open("rb") as file:
            while header := file.read(RECORD.size):
                time, size = RECORD.unpack(header)
                triples = file.read(size)
                if time >= self.first_ticks:
                    yield time - self.start_ticks, triples

    def lost_kinds(self, *, has_texts: bool) -> list[str]:
        """Warnings for an output that has no triples. `has_texts`: but those of CC1."""
        different = {triple for _time, triples in self.read() for triple in split(triples)}
        valid = [triple for triple in different if triple[0] & VALID]
        if any(map(_is_to_another_channel, valid)):
            return [CHANNELS_WARNING]
        return [KIND_WARNING] if not has_texts and any(triple[0] & CEA_708 for triple in valid) else []


def _is_to_another_channel(triple: bytes) -> bool:
    """Whether it is a command of CEA-608 to another channel than CC1 (CTA-608, 7.7)."""
    kind, first, second = triple
    return (
        not kind & CEA_708
        and first.bit_count() % 2 == 1
        and first & 127 in _OTHER_CHANNELS[kind & 1]
        and 0x20 <= second & 127 < 0x30
    )


@dataclass(frozen=True, kw_only=True)
class Captions:
    """What a video has of captions that the output can hold; and warnings."""

    texts: CaptionTexts | None = None
    triples: CaptionTriples | None = None
    warnings: tuple[str, ...] = ()


def read_captions(
    runner: FfmpegRunner,
    source: Path,
    streams: Sequence[Mapping[str, Any]],
    directory: Path,
    *,
    render: RenderPlan,
    cancelled: Callable[[], bool],
) -> Captions:
    """Write the video's captions to files in `directory`, if it has any.

    `streams`: all of the source's, by ffprobe. Raises FfmpegCancelled once `cancelled` returns True, FfmpegDiskFull and
    FfmpegMissing.
    """
    if not render.has_captions:
        return Captions()
    raw, path = directory / "decoded.ass", directory / "captions.ass"
    shift = seconds_option(SHIFT_SECONDS - render.input_start_seconds + render.skipped_seconds)
    # What a part's first pictures show was sent before them.
    earlier = max(Fraction(0), render.skipped_seconds - LEAD_SECONDS)
    options = decoder_options(None) | ({"ss": seconds_option(earlier)} if earlier else {})
    pictures = runner.input(source, itsoffset=shift, **options)[str(render.stream_index)]
    start = SHIFT_SECONDS + render.skipped_seconds
    end = Fraction(render.offset_ticks + render.total_ticks, render.timescale)
    triples = CaptionTriples(
        path=directory / "captions.bin",
        start_ticks=round(start * CLOCK),
        # Times are rounded twice on the way.
        first_ticks=round(start * CLOCK) - 1 if render.skipped_seconds else 0,
    )
    for written in (raw, triples.path):
        written.touch()
    warnings = []
    try:
        _decode(runner, pictures, raw, triples.path, cancelled, part=render.part)
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
            fitted = line if text is None else _fit(text, film_start=start, film_end=end)
            has_texts = has_texts or (text is not None and fitted != "")
            file.write(fitted)
    is_kept = CODECS[render.codec].holds_captions
    if not is_kept and not warnings:
        warnings = triples.lost_kinds(has_texts=has_texts)
    index = 1 + max(int(stream["index"]) for stream in streams)
    track = KeptTrack(index=index, kind="subtitle", is_copied=False, is_default=False, is_captions=True)
    return Captions(
        texts=CaptionTexts(path=path, track=track) if has_texts else None,
        triples=triples if is_kept else None,
        warnings=tuple(warnings),
    )


def _decode(
    runner: FfmpegRunner,
    pictures: Stream,
    path: Path,
    triples_path: Path,
    cancelled: Callable[[], bool],
    *,
    part: TimeRange | None,
) -> None:
    """Write the captions of the pictures up to the end of `part`: as ASS, decoded as the decoder makes them, and as
    triples."""
    filters = TINY
    if part is not None and part.end is not None:
        filters += f",trim=end={seconds_option(SHIFT_SECONDS + part.end)}"
    tiny = ffmpeg.output(pictures, "pipe:1", vf=filters, fps_mode="passthrough", **TINY_CODING)
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
        triples_path.open("wb") as file,
    ):
        try:
            for piece, (time, triples) in caption_tags(io.BufferedReader(encoder.stdout, CHUNK_BYTES)):  # type: ignore[type-var]
                if cancelled():
                    break
                decoder.write_all(piece)
                if triples:
                    file.write(RECORD.pack(time, len(triples)) + triples)
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
