"""The command that puts the output together, for any choice of tracks."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from math import lcm
from pathlib import Path
from typing import Any

import structlog

from app.platform.errors import (
    FfmpegCancelled,
    FfmpegDiskFull,
    FfmpegError,
    FfmpegKilled,
    FfmpegMissing,
    FfmpegTimeout,
)
from app.platform.media.containers import MOV
from app.platform.media.ffmpeg import FfmpegRunner, Stream, file_name
from worker.video.captions import CaptionTexts
from worker.video.cut_tracks import packet_filters
from worker.video.filter_expressions import seconds_option
from worker.video.join import LIST_SUFFIX, concat_stream
from worker.video.metadata import KeptMetadata
from worker.video.opus_start import opus_filter
from worker.video.plan import RenderPlan
from worker.video.subtitle_edits import CLIPPED, subtitle_shifts
from worker.video.timestamp_check import WrittenFile, read_file_back
from worker.video.track_flags import switch_off_subtitles
from worker.video.track_languages import write_languages
from worker.video.tracks import TOLD_ELSEWHERE, KeptTrack
from worker.video.uniform_sound import UniformSound

log = structlog.get_logger(__name__)

# Some players do not read 64-bit durations in MP4's movie header.
MAX_MOVIE_TICKS = 2**31 - 1
# Finer than an audio sample, for a video whose own ticks are coarser.
MOVIE_TIMESCALE = 90_000
# The muxer queues video until late audio starts.
MUXING_QUEUE_PACKETS = 16_384
# Read ahead of the input, whose packets are short: by ffmpeg's usual 8 its threads wait for each other at most of them.
SOUND_QUEUE_PACKETS = 64
# The only tags of the streams that are kept: the others describe the input's coding.
STREAM_TAGS = ("language", "title")
BOX_TAGS = ("handler_name", "vendor_id")
# Of such a tag: an argument of a command is at most 128 KiB long on Linux.
MAX_TAG_CHARACTERS = 1_000

DAMAGED_SOUND = "Sound that could not be copied was converted."
SUBTITLES_UNREADABLE = "Subtitles could not be read and were left out."
SOUND_UNREADABLE = "A sound track could not be read and was left out."
UNREADABLE = {
    "audio": SOUND_UNREADABLE,
    "subtitle": SUBTITLES_UNREADABLE,
    "data": "A track of data could not be read and was left out.",
}


class MuxCommand:
    """The mux command of one render, for any choice of tracks.

    `video`: a list of segments, or the joined file. Its packets get `timestamps` by that filter, if there is one.
    """

    def __init__(
        self,
        *,
        runner: FfmpegRunner,
        video: Path,
        source: Path,
        uniform: UniformSound | None,
        captions: CaptionTexts | None,
        part: Path,
        render: RenderPlan,
        streams: Sequence[dict[str, Any]],
        metadata: KeptMetadata,
        timestamps: str,
        chapters: Path | None,
    ) -> None:
        self._runner = runner
        self._video = video
        self._source = source
        self._uniform = uniform
        self._captions = captions
        self._subtitle_shifts = subtitle_shifts(source)
        self._part = part
        self._render = render
        self._streams = streams
        self._metadata = metadata
        self._timestamps = timestamps
        self._chapters = chapters
        self.written: WrittenFile | None = None
        """What the last run wrote, read back; None if it was not."""

    def run(self, tracks: Sequence[KeptTrack], cancelled: Callable[[], bool]) -> tuple[str, ...]:
        """Mux the tracks; if that fails, those of them that can be muxed alone. Returns warnings about the others."""
        if self._succeeds(tracks, cancelled):
            return ()
        warnings: dict[str, None] = {}
        usable = []
        for track in tracks:
            # Conversion survives damage that a copy does not.
            converted = replace(track, is_copied=False)
            ways = [track, converted] if track.kind == "audio" and track.is_copied else [track]
            way = next((one for one in ways if self._has_packets_alone(one, cancelled)), None)
            if way is not None:
                usable.append(way)
            if way is not track:
                warnings[UNREADABLE[track.kind] if way is None else DAMAGED_SOUND] = None
            if way not in (None, track) and track.mixed is not None:
                warnings[track.mixed] = None
        if usable and self._succeeds(usable, cancelled):
            return tuple(warnings)
        self._run((), cancelled)
        return tuple(dict.fromkeys(UNREADABLE[track.kind] for track in tracks))

    def _has_packets_alone(self, track: KeptTrack, cancelled: Callable[[], bool]) -> bool:
        """Whether a file of this one track, without the video, can be written and is not empty."""
        if not self._succeeds((track,), cancelled, has_video=False):
            return False
        first = ("-read_intervals", "%+#1", "-show_entries", "packet=size")
        return bool(self._runner.probe(self._part, *first).get("packets"))

    def _succeeds(
        self, tracks: Sequence[KeptTrack], cancelled: Callable[[], bool], *, has_video: bool = True
    ) -> bool:
        """Whether ffmpeg accepts the tracks; errors that are not theirs are raised."""
        try:
            self._run(tracks, cancelled, has_video=has_video)
        except (FfmpegCancelled, FfmpegDiskFull, FfmpegKilled, FfmpegMissing, FfmpegTimeout):
            raise
        except FfmpegError as error:
            log.warning("mux_failed", tracks=[track.index for track in tracks], detail=error.detail)
            return False
        # The muxer leaves a track out, without an error, if its first packets do not describe it.
        self.written = read_file_back(self._runner, self._part)
        others = [
            stream
            for stream in self.written.tracks
            if (kind := stream.get("codec_type")) in UNREADABLE
            # QuickTime's subtitles have the tag of its chapters.
            and (kind != "data" or stream.get("codec_tag_string") not in TOLD_ELSEWHERE)
        ]
        return len(others) == len(tracks)

    def _run(
        self, tracks: Sequence[KeptTrack], cancelled: Callable[[], bool], *, has_video: bool = True
    ) -> None:
        self.written = None
        command = self._arguments(tracks, has_video=has_video)
        self._runner.run(command, purpose="joining the segments", cancelled=cancelled)
        if not self._render.file.is_iso:
            return
        if self._render.file is MOV and has_video:
            indexes = [self._render.stream_index, *(track.index for track in tracks)]
            tags = {stream["index"]: stream.get("tags", {}) for stream in self._streams}
            write_languages(self._part, [tags.get(index, {}).get("language", "") for index in indexes])
        subtitles = [track for track in tracks if track.kind == "subtitle"]
        switch_off_subtitles(
            self._part, {number for number, track in enumerate(subtitles) if not track.is_default}
        )

    def _arguments(self, tracks: Sequence[KeptTrack], *, has_video: bool) -> list[str]:
        arguments: list[str] = self._compose(tracks, has_video=has_video).get_args()
        if not has_video:
            return arguments
        # ffmpeg-python chooses the order of the inputs.
        ends = [at + 2 for at, word in enumerate(arguments) if word == "-i"]
        inputs = [arguments[start:end] for start, end in pairwise([0, *ends])]

        def position_of(path: Path) -> str:
            return next(
                str(number)
                for number, words in enumerate(inputs)
                if words[-1] == file_name(path) and "-ignore_editlist" not in words
            )

        position, chapters = position_of(self._source), position_of(self._chapters or self._source)
        extra = ["-map_metadata", position, "-map_chapters", chapters, *self._metadata.arguments]
        if not self._render.file.is_iso:
            # Matroska holds all tags, even those that describe the boxes of the files before.
            extra += [word for tag in BOX_TAGS for word in ("-metadata:s", f"{tag}=")]
        sounds = [track.index for track in tracks if track.kind == "audio"]
        retagged = {"v:0": self._render.stream_index}
        if self._uniform is not None:
            retagged |= {
                f"a:{sounds.index(index)}": index for index in self._uniform.indexes if index in sounds
            }
        for specifier, index in retagged.items():
            tags = next(stream for stream in self._streams if stream["index"] == index).get("tags", {})
            for tag in STREAM_TAGS:
                if tags.get(tag):
                    extra += [f"-metadata:s:{specifier}", f"{tag}={tags[tag][:MAX_TAG_CHARACTERS]}"]
        return [*arguments[:-1], *extra, arguments[-1]]

    def _compose(self, tracks: Sequence[KeptTrack], *, has_video: bool) -> Stream:
        render = self._render
        if self._video.suffix == LIST_SUFFIX:
            joined = concat_stream(self._runner, self._video, render=render)
        else:
            joined = self._runner.input(self._video, copyts=None)["v:0"]
        # The input is shifted so that its start is at 0; the video's offset is in its timestamps. Without copyts,
        # ffmpeg would shift by the earliest start of the streams in use.
        original = self._runner.input(
            self._source,
            itsoffset=seconds_option(-render.input_start_seconds),
            thread_queue_size=SOUND_QUEUE_PACKETS,
        )
        other = self._read_otherwise(tracks)
        maps = [other.get(track.index, original[str(track.index)]) for track in tracks]
        if all(track.index in other for track in tracks):
            # The file must be an input for its chapters and metadata, even if none of its streams is used.
            maps.append(original["a:999?"])
        if self._chapters is not None:
            maps.append(self._runner.own_file_input(self._chapters, demuxer="ffmetadata")["a:999?"])
        options: dict[str, Any] = {
            "c:v": "copy",
            **({"bsf:v": self._timestamps} if self._timestamps else {}),
            # Not all codes are in the segments' containers.
            **render.tags.options,
            **render.file.video_options(
                codec=render.codec, timescale=render.timescale, movie_timescale=self._movie_timescale()
            ),
            **render.file.finished_options,
            **(render.alpha_tag if has_video else {}),
            **(self._metadata.options if has_video else {}),
            "max_muxing_queue_size": MUXING_QUEUE_PACKETS,
        }
        numbers = dict.fromkeys(UNREADABLE, 0)
        for track in tracks:
            options |= track.options(numbers[track.kind], file=render.file)
            specifier = f"bsf:{track.kind[0]}:{numbers[track.kind]}"
            if track.kind != "audio" and not track.is_captions and render.part is not None:
                options[specifier] = packet_filters(render.part)
            elif track.kind == "subtitle" and track.is_copied and track.index in other:
                options[specifier] = CLIPPED
            elif self._may_be_moved(track) and (moved := opus_filter(self._runner)):
                options[specifier] = moved
            numbers[track.kind] += 1
        streams = [joined, *maps] if has_video else maps
        return self._runner.output(*streams, self._part, **options)

    def _may_be_moved(self, track: KeptTrack) -> bool:
        """Whether some versions of ffmpeg write the track's sound too early."""
        file = self._render.file
        if track.kind != "audio" or file.is_iso:
            return False
        codec = next(one["codec_name"] for one in self._streams if one["index"] == track.index)
        return codec == "opus" if track.is_copied else file.audio_codec == "Opus"

    def _read_otherwise(self, tracks: Sequence[KeptTrack]) -> dict[int, Stream]:
        """The tracks that are not read from the source as it is, by their index."""
        streams = {}
        if self._uniform is not None:
            read = self._uniform.input(self._runner, skipped_seconds=self._render.skipped_seconds)
            streams = {index: read[f"a:{number}"] for number, index in enumerate(self._uniform.indexes)}
        if self._captions is not None:
            streams[self._captions.track.index] = self._captions.input(self._runner)
        copied = {track.index for track in tracks if track.kind == "subtitle" and track.is_copied}
        for index in copied & self._subtitle_shifts.keys():
            offset = seconds_option(self._subtitle_shifts[index] - self._render.input_start_seconds)
            streams[index] = self._runner.input(self._source, ignore_editlist=1, itsoffset=offset)[str(index)]
        return streams

    def _movie_timescale(self) -> int:
        """Ticks per second of the movie header, in which edit lists state a track's start: a common multiple of video
        and audio, so that neither is rounded; if that is too fine for 32 bits, a multiple of the video's.
        """
        timescale = self._render.timescale
        rates = [
            int(stream["sample_rate"]) for stream in self._streams if int(stream.get("sample_rate", 0)) > 0
        ]
        fits = MAX_MOVIE_TICKS * timescale // (2 * max(1, self._render.total_ticks))
        exact = lcm(timescale, *rates)
        if exact <= fits:
            return exact
        return timescale * max(1, min(fits, MOVIE_TIMESCALE) // timescale)
