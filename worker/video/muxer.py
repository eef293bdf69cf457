"""Makes the output: joins the segments by stream copy and adds the input's sound, subtitles, chapters and metadata."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from math import lcm
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import structlog

from app.platform.errors import (
    Canceled,
    FfmpegCancelled,
    FfmpegDiskFull,
    FfmpegError,
    FfmpegKilled,
    FfmpegMissing,
    FfmpegTimeout,
)
from app.platform.media.containers import OUTPUT
from app.platform.media.ffmpeg import FfmpegRunner, Stream, file_name
from app.platform.media.properties import VideoProperties
from app.platform.media.recognition import ENCRYPTION_TAG
from worker.video import join_groups
from worker.video.captions import Captions, write_captions
from worker.video.cut_tracks import fit_sound, packet_filters, write_chapters
from worker.video.filter_expressions import seconds_option
from worker.video.join import check_plan, outer_files, timestamp_filter, write_concat_list
from worker.video.metadata import KeptMetadata, keep_metadata, lost_tags
from worker.video.plan import RenderPlan, SegmentPlan
from worker.video.raw_aac import read_sound_packets
from worker.video.sound_headers import sound_formats
from worker.video.spherical_video import tag_spatial
from worker.video.subtitle_edits import CLIPPED, subtitle_shifts
from worker.video.thumbnail import make_thumbnail
from worker.video.timestamp_check import check_output, read_back, runner_for_output
from worker.video.track_flags import switch_off_subtitles
from worker.video.tracks import TOLD_ELSEWHERE, KeptTrack, choose_tracks, within_budget
from worker.video.uniform_sound import UniformSound, write_uniform_sound

log = structlog.get_logger(__name__)

# Some players do not read 64-bit durations in MP4's movie header.
MAX_MOVIE_TICKS = 2**31 - 1
# Finer than an audio sample, for a video whose own ticks are coarser.
MOVIE_TIMESCALE = 90_000
# The muxer queues video until late audio starts.
MUXING_QUEUE_PACKETS = 16_384
# The only tags of the streams that are kept: the others describe the input's coding.
STREAM_TAGS = ("language", "title")
# Of such a tag: an argument of a command is at most 128 KiB long on Linux.
MAX_TAG_CHARACTERS = 1_000

DAMAGED_SOUND = "Sound that could not be copied was converted."
SUBTITLES_UNREADABLE = "Subtitles could not be read and were left out."
SOUND_UNREADABLE = "A sound track could not be read and was left out."
STREAM_FIELDS = "index,codec_type,codec_name,codec_tag_string,channels,channel_layout,sample_rate,profile"
SOURCE_FIELDS = (
    "-show_entries",
    f"format=format_name:format_tags:stream={STREAM_FIELDS}:stream_disposition=attached_pic,default"
    f":stream_tags=language,title,timecode,{ENCRYPTION_TAG}",
)
LATE_SOUND_BYTES = 100_000_000
UNREADABLE = {
    "audio": SOUND_UNREADABLE,
    "subtitle": SUBTITLES_UNREADABLE,
    "data": "A track of data could not be read and was left out.",
}


@dataclass(frozen=True, kw_only=True)
class FinishedVideo:
    """The output. `warnings` are sentences for the user."""

    properties: VideoProperties
    size_bytes: int
    warnings: tuple[str, ...]


def finish_render(
    *,
    runner: FfmpegRunner,
    source: Path,
    segment_files: Sequence[Path],
    render: RenderPlan,
    segments: Sequence[SegmentPlan],
    destination: Path,
    thumbnail: Path | None,
    cancelled: Callable[[], bool],
) -> FinishedVideo:
    """Make the output, and its thumbnail if wanted, from the input and the files of all segments, in order.

    Every frame's timestamp and the duration are read back and compared with the plan before `destination` appears.
    Raises PermanentError if the segments do not belong together, TransientError if the output is not as planned,
    Canceled once `cancelled` returns True, FfmpegError if ffmpeg fails.
    """
    check_plan(render, segments, segment_files)
    answer = runner.probe(source, *SOURCE_FIELDS)
    if any(
        stream.get("codec_type") == "audio" and not stream.get("channels")
        for stream in answer.get("streams", [])
    ):
        # Sound that starts late in a transport stream is described where it starts.
        runner = runner.under(replace(runner.limits, probe_bytes=LATE_SOUND_BYTES))
        answer = runner.probe(source, *SOURCE_FIELDS)
    own_runner = runner_for_output(runner, render.target)
    first, last = outer_files(own_runner, segment_files)
    streams: list[dict[str, Any]] = answer.get("streams", [])
    tags = answer["format"].get("tags", {})
    metadata = keep_metadata(tags, streams, render=render, segments=segments)
    part = destination.with_name(f"{destination.name}.part")
    try:
        format_name = answer["format"]["format_name"]
        runs, described_anew, undescribed = read_sound_packets(
            runner, source, streams, format_name=format_name, cancelled=cancelled
        )
        formats = sound_formats(
            runner,
            source,
            streams,
            format_name=format_name,
            described_anew=described_anew,
            cancelled=cancelled,
        )
        choice = choose_tracks(
            streams,
            video_index=render.stream_index,
            formats=formats,
            is_joined=render.continuous is not None and render.continuous.is_joined,
        )
        start = render.input_start_seconds
        end = start + Fraction(render.offset_ticks + render.total_ticks, render.timescale)
        tracks, fitted = fit_sound(choice.tracks, runs, part=render.part, start=start, end=end)
        with TemporaryDirectory(prefix="join-", dir=destination.parent) as scratch:
            directory = Path(scratch)
            files, parts = segment_files, segments
            timestamps = timestamp_filter(render, parts, first=first, last=last)
            if len(timestamps) > join_groups.LONGEST_FILTER:
                files, parts = join_groups.join_groups(
                    own_runner,
                    files,
                    render=render,
                    segments=segments,
                    directory=directory,
                    cancelled=cancelled,
                )
                first, last = read_back(own_runner, files[0]), read_back(own_runner, files[-1])
                timestamps = timestamp_filter(render, parts, first=first, last=last)
            uniform = write_uniform_sound(
                runner,
                source,
                tracks,
                directory / "sound.nut",
                start_seconds=start - render.skipped_seconds,
                cancelled=cancelled,
            )
            captions, captions_lost = write_captions(
                runner, source, streams, directory, render=render, cancelled=cancelled
            )
            copied_bytes = sum(path.stat().st_size for path in (source, *files))
            list_path = write_concat_list(directory, files, parts, timescale=render.timescale)
            mux = _MuxCommand(
                runner=within_budget(own_runner, streams, seconds=end - start, copied_bytes=copied_bytes),
                list_path=list_path,
                source=source,
                uniform=uniform,
                captions=captions,
                part=part,
                render=render,
                streams=streams,
                metadata=metadata,
                timestamps=timestamps,
                chapters=write_chapters(runner, source, directory, render.part, start=start),
            )
            warnings = mux.run((*tracks, *([captions.track] if captions else [])), cancelled)
        if render.spatial is not None:
            warnings = (*warnings, *tag_spatial(part, render.spatial))
        check_output(own_runner, part, render=render, segments=segments)
        left_out = lost_tags(tags, {})
        if left_out:
            written = own_runner.probe(part, "-show_entries", "format_tags").get("format", {}).get("tags", {})
            left_out = lost_tags(tags, written)
        if thumbnail is not None:
            make_thumbnail(own_runner, part, thumbnail, render=render, segments=segments, cancelled=cancelled)
        part.replace(destination)
    except FfmpegCancelled as error:
        raise Canceled() from error
    finally:
        part.unlink(missing_ok=True)
    told = (
        *render.warnings,
        *choice.warnings,
        *undescribed,
        *fitted,
        *captions_lost,
        *warnings,
        *metadata.warnings,
    )
    return FinishedVideo(
        properties=render.output,
        size_bytes=destination.stat().st_size,
        warnings=tuple(dict.fromkeys((*told, *left_out))),
    )


class _MuxCommand:
    """The mux command of one render, for any choice of tracks."""

    def __init__(
        self,
        *,
        runner: FfmpegRunner,
        list_path: Path,
        source: Path,
        uniform: UniformSound | None,
        captions: Captions | None,
        part: Path,
        render: RenderPlan,
        streams: Sequence[dict[str, Any]],
        metadata: KeptMetadata,
        timestamps: str,
        chapters: Path | None,
    ) -> None:
        self._runner = runner
        self._list_path = list_path
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
        fields = "stream=codec_type,codec_tag_string"
        written = self._runner.probe(self._part, "-show_entries", fields).get("streams", [])
        others = [
            stream
            for stream in written
            if stream.get("codec_type") in UNREADABLE and stream.get("codec_tag_string") not in TOLD_ELSEWHERE
        ]
        return len(others) == len(tracks)

    def _run(
        self, tracks: Sequence[KeptTrack], cancelled: Callable[[], bool], *, has_video: bool = True
    ) -> None:
        command = self._arguments(tracks, has_video=has_video)
        self._runner.run(command, purpose="joining the segments", cancelled=cancelled)
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
        joined = self._runner.concat_input(self._list_path, auto_convert=0, copyts=None)
        # The input is shifted so that its start is at 0; the video's offset is in its timestamps. Without copyts,
        # ffmpeg would shift by the earliest start of the streams in use.
        original = self._runner.input(self._source, itsoffset=seconds_option(-render.input_start_seconds))
        other = self._read_otherwise(tracks)
        maps = [other.get(track.index, original[str(track.index)]) for track in tracks]
        if all(track.index in other for track in tracks):
            # The file must be an input for its chapters and metadata, even if none of its streams is used.
            maps.append(original["a:999?"])
        if self._chapters is not None:
            maps.append(self._runner.own_file_input(self._chapters, demuxer="ffmetadata")["a:999?"])
        options: dict[str, Any] = {
            "c:v": "copy",
            "bsf:v": self._timestamps,
            # Not all codes are in the segments' containers.
            **render.tags.options,
            **OUTPUT.video_options(
                codec=render.codec, timescale=render.timescale, movie_timescale=self._movie_timescale()
            ),
            **OUTPUT.finished_options,
            **(self._metadata.options if has_video else {}),
            "max_muxing_queue_size": MUXING_QUEUE_PACKETS,
        }
        numbers = dict.fromkeys(UNREADABLE, 0)
        for track in tracks:
            options |= track.options(numbers[track.kind])
            specifier = f"bsf:{track.kind[0]}:{numbers[track.kind]}"
            if track.kind != "audio" and not track.is_captions and render.part is not None:
                options[specifier] = packet_filters(render.part)
            elif track.kind == "subtitle" and track.is_copied and track.index in other:
                options[specifier] = CLIPPED
            numbers[track.kind] += 1
        streams = [joined["v:0"], *maps] if has_video else maps
        return self._runner.output(*streams, self._part, **options)

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
