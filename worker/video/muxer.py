"""Makes the output: joins the segments by stream copy and adds the input's sound, subtitles, chapters and metadata."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from app.platform.errors import Canceled, FfmpegCancelled
from app.platform.media.clock import may_restart
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.ffprobe_output import fraction
from app.platform.media.file_listing import FileListing, list_file
from app.platform.media.info import VideoProperties
from app.platform.media.recognition import ENCRYPTION_TAG
from worker.video import join_groups
from worker.video.caption_messages import keep_in_pictures
from worker.video.captions import CaptionTriples, read_captions
from worker.video.cut_tracks import fit_sound, write_chapters
from worker.video.join import (
    check_alike,
    check_plan,
    outer_files,
    timestamp_filter,
    write_concat_list,
    written_duration,
    written_timestamps,
)
from worker.video.metadata import keep_metadata, lost_tags
from worker.video.mux_command import MuxCommand
from worker.video.plan import RenderPlan, SegmentPlan
from worker.video.raw_aac import read_sound_packets
from worker.video.sound_headers import sound_formats
from worker.video.spherical_video import spatial_left_out, tag_spatial
from worker.video.thumbnail import make_thumbnail
from worker.video.timestamp_check import WrittenVideo, check_output, read_back, runner_for_output
from worker.video.tracks import KeptTrack, choose_tracks, within_budget
from worker.video.uniform_sound import write_uniform_sound

STREAM_FIELDS = (
    "index,codec_type,codec_name,codec_tag_string,channels,channel_layout,sample_rate,profile,time_base"
)
SOURCE_FIELDS = (
    "-show_entries",
    f"format=format_name:format_tags:stream={STREAM_FIELDS}:stream_disposition=attached_pic,default"
    f":stream_tags=language,title,timecode,{ENCRYPTION_TAG}",
)
LATE_SOUND_BYTES = 100_000_000


@dataclass(frozen=True, kw_only=True)
class FinishedVideo:
    """The output. `warnings` are sentences for the user."""

    properties: VideoProperties
    size_bytes: int
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Source:
    """The input, as `runner` describes it. `listing`: all that it was read for, if that says as much as `answer`."""

    path: Path
    runner: FfmpegRunner
    answer: dict[str, Any]
    listing: FileListing | None

    @property
    def format_name(self) -> str:
        return str(self.answer["format"]["format_name"])

    @property
    def tags(self) -> dict[str, str]:
        tags: dict[str, str] = self.answer["format"].get("tags", {})
        return tags

    @property
    def streams(self) -> list[dict[str, Any]]:
        streams: list[dict[str, Any]] = self.answer.get("streams", [])
        return streams


@dataclass(frozen=True, kw_only=True)
class _JoinedVideo:
    """A list of files, or a file, whose packets get `timestamps` by that filter, if there is one.

    `copied_bytes`: the size of all files of it.
    """

    path: Path
    timestamps: str
    copied_bytes: int


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
    listing: FileListing | None = None,
    outer: tuple[WrittenVideo, WrittenVideo] | None = None,
) -> FinishedVideo:
    """Make the output, and its thumbnail if wanted, from the input and the files of all segments, in order.

    `listing`: the source's, `outer`: the first and the last segment's file as read back, if they are known already.
    Every frame's timestamp and the duration are read back and compared with the plan before `destination` appears.
    Raises PermanentError if the segments do not belong together, TransientError if the output is not as planned,
    Canceled once `cancelled` returns True, FfmpegError if ffmpeg fails.
    """
    check_plan(render, segments, segment_files)
    described = _describe(runner, source, listing)
    runner, streams, tags = described.runner, described.streams, described.tags
    own_runner = runner_for_output(runner, render.target)
    check_alike(render, segment_files)
    outer = outer or outer_files(own_runner, segment_files)
    metadata = keep_metadata(tags, streams, render=render, segments=segments)
    part = destination.with_name(f"{destination.name}.part")
    try:
        start = render.input_start_seconds
        end = start + Fraction(render.offset_ticks + render.total_ticks, render.timescale)
        tracks, told_of_tracks = _keep_tracks(described, render, start=start, end=end, cancelled=cancelled)
        with TemporaryDirectory(prefix="join-", dir=destination.parent) as scratch:
            directory = Path(scratch)
            captions = read_captions(runner, source, streams, directory, render=render, cancelled=cancelled)
            joined = _join(
                own_runner,
                segment_files,
                directory,
                outer=outer,
                captions=captions.triples,
                render=render,
                segments=segments,
                cancelled=cancelled,
            )
            uniform = write_uniform_sound(
                runner,
                source,
                tracks,
                directory / "sound.nut",
                start_seconds=start - render.skipped_seconds,
                cancelled=cancelled,
            )
            copied_bytes = source.stat().st_size + joined.copied_bytes
            mux = MuxCommand(
                runner=within_budget(own_runner, streams, seconds=end - start, copied_bytes=copied_bytes),
                video=joined.path,
                source=source,
                uniform=uniform,
                captions=captions.texts,
                part=part,
                render=render,
                streams=streams,
                metadata=metadata,
                timestamps=joined.timestamps,
                chapters=write_chapters(runner, source, directory, render.part, start=start),
            )
            told_by_mux = mux.run((*tracks, *([captions.texts.track] if captions.texts else [])), cancelled)
        written = mux.written and mux.written.video
        if render.spatial is not None:
            written = None
            tags_left = tag_spatial if render.file.is_iso else spatial_left_out
            told_by_mux = (*told_by_mux, *tags_left(part, render.spatial))
        check_output(written or read_back(own_runner, part), render=render, segments=segments)
        left_out = lost_tags(tags, {})
        if left_out:
            kept = own_runner.probe(part, "-show_entries", "format_tags").get("format", {}).get("tags", {})
            left_out = lost_tags(tags, kept, container=render.file)
        if thumbnail is not None:
            make_thumbnail(own_runner, part, thumbnail, render=render, segments=segments, cancelled=cancelled)
        part.replace(destination)
    except FfmpegCancelled as error:
        raise Canceled() from error
    finally:
        part.unlink(missing_ok=True)
    told = (
        *render.warnings,
        *told_of_tracks,
        *captions.warnings,
        *told_by_mux,
        *metadata.warnings,
        *left_out,
    )
    return FinishedVideo(
        properties=render.output,
        size_bytes=destination.stat().st_size,
        warnings=tuple(dict.fromkeys(told)),
    )


def _describe(runner: FfmpegRunner, path: Path, listing: FileListing | None) -> _Source:
    listing = listing or list_file(runner, path)
    answer = runner.probe(path, *SOURCE_FIELDS) if listing is None else listing.answer
    source = _Source(path=path, runner=runner, answer=answer, listing=listing)
    if all(one.get("channels") for one in source.streams if one.get("codec_type") == "audio"):
        return source
    # Sound that starts late in a transport stream is described where it starts.
    runner = runner.under(replace(runner.limits, probe_bytes=LATE_SOUND_BYTES))
    return _Source(path=path, runner=runner, answer=runner.probe(path, *SOURCE_FIELDS), listing=None)


def _keep_tracks(
    source: _Source, render: RenderPlan, *, start: Fraction, end: Fraction, cancelled: Callable[[], bool]
) -> tuple[tuple[KeptTrack, ...], tuple[str, ...]]:
    """The input's tracks besides the video, as the output has them, and warnings.

    `start`, `end`: where the output's video starts and ends in the input, in seconds.
    """
    runs, described_anew, undescribed = read_sound_packets(
        source.runner,
        source.path,
        source.streams,
        format_name=source.format_name,
        cancelled=cancelled,
        listing=source.listing,
    )
    formats = sound_formats(
        source.runner,
        source.path,
        source.streams,
        format_name=source.format_name,
        described_anew=described_anew,
        cancelled=cancelled,
    )
    choice = choose_tracks(
        source.streams,
        video_index=render.stream_index,
        formats=formats,
        is_joined=render.continuous is not None and render.continuous.is_joined,
        file=render.file,
        has_exact_times=may_restart(source.format_name),
    )
    tracks, fitted = fit_sound(
        choice.tracks,
        runs,
        part=render.part,
        start=start,
        end=end,
        file=render.file,
        time_bases={one["index"]: tick for one in source.streams if (tick := fraction(one.get("time_base")))},
    )
    return tracks, (*choice.warnings, *undescribed, *fitted)


def _join(
    runner: FfmpegRunner,
    files: Sequence[Path],
    directory: Path,
    *,
    outer: tuple[WrittenVideo, WrittenVideo],
    captions: CaptionTriples | None,
    render: RenderPlan,
    segments: Sequence[SegmentPlan],
    cancelled: Callable[[], bool],
) -> _JoinedVideo:
    """The segments' files as one video, with the captions in its pictures. What it takes is made in `directory`."""
    (first, last), parts = outer, segments
    if captions is not None:
        files = keep_in_pictures(
            captions.read(), files, directory, render=render, segments=segments, cancelled=cancelled
        )
    timestamps = timestamp_filter(render, parts, first=first, last=last)
    if len(timestamps) > join_groups.LONGEST_FILTER:
        files, parts = join_groups.join_groups(
            runner, files, render=render, segments=segments, directory=directory, cancelled=cancelled
        )
        first, last = read_back(runner, files[0]), read_back(runner, files[-1])
        timestamps = timestamp_filter(render, parts, first=first, last=last)
    copied_bytes = sum(file.stat().st_size for file in files)
    video = write_concat_list(directory, files, parts, timescale=render.segment_timescale)
    if not render.file.is_iso:
        # ffmpeg 5 runs the filter in the ticks of the written file, which are too few.
        listed, video = video, directory / f"joined{render.segment_file.suffix}"
        join_groups.write_joined(
            runner,
            listed,
            video,
            render=render,
            timestamps=timestamps + written_timestamps(render),
            cancelled=cancelled,
        )
        timestamps = written_duration(render, segments, last=last)
    return _JoinedVideo(path=video, timestamps=timestamps, copied_bytes=copied_bytes)
