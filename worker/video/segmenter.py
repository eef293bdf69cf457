"""Plans a render: a RenderPlan, and segments that together contain every output frame exactly once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from itertools import accumulate
from math import ceil, floor
from pathlib import Path

import structlog

from app.platform.media.containers import ContainerName, VideoCodec
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.info import input_start
from app.platform.media.picture_options import STABILISED_RADIUS
from app.platform.media.probe import MediaInfo
from app.platform.media.rates import Retime
from app.platform.media.time_range import TimeRange
from app.platform.media.work_options import WorkOptions
from worker.video.appended_files import APPENDED_WARNING, has_appended_file
from worker.video.colour import ColourPlan, plan_colour
from worker.video.continuous_copy import ContinuousCopy
from worker.video.cuts import MAX_SEGMENT_FRAMES, cut_segments, used_frames
from worker.video.deinterlace import Deinterlacing, as_fields, plan_deinterlacing
from worker.video.encoder import MIN_REORDERED_FRAMES, choose_codec
from worker.video.film import film_of
from worker.video.frame_scan import FrameScan, scan_frames
from worker.video.hdr_metadata import SourceMetadata, read_source_metadata
from worker.video.packet_list import TickRange
from worker.video.plan import MOST_DISCARDED_FRAMES, RenderPlan, SegmentPlan
from worker.video.segment_plans import discarded_before_segments, has_frames_of, keyframe_cuts, make_segments
from worker.video.timeline import (
    MICROSECONDS,
    OutputTimeline,
    SourceTimeline,
    after_frames,
    apply_offset,
    average_rate,
    plan_output_timeline,
    up_to_end,
    without_equal_neighbours,
)
from worker.video.transparency import ALPHA_WARNING, is_transparent, plan_transparency

log = structlog.get_logger(__name__)

HALF_MICROSECOND = Fraction(1, 2_000_000)
# Of the segments of a video's first frames, so many at their end may come out otherwise when more frames follow: the
# last two share what remains, and what an output frame shows depends on source frames up to two after it.
UNSETTLED_SEGMENTS = 4
# Formats in which ffmpeg seeks by presentation time; in others (MPEG-TS, AVI, ...) by decoding time.
SEEKS_BY_PTS = ("mov", "matroska")


@dataclass(frozen=True, kw_only=True)
class SettledSegments:
    """Segments that the rest of the video does not change, after those settled before.

    `render` is the plan as far as it is known; `planned_frames` and `expected_frames` are how many frames go through
    the network in all segments so far and, to judge by the packets, in the whole video.
    """

    render: RenderPlan
    segments: Sequence[SegmentPlan]
    planned_frames: int
    expected_frames: int


@dataclass(frozen=True, kw_only=True)
class EarlyRelease:
    """Takes segments while the video is still being read.

    `take` returns whether they were taken: else it is given them again with the next ones. `begun` is the plan that an
    earlier attempt gave; with it, the same segments come out.
    """

    take: Callable[[SettledSegments], bool]
    begun: RenderPlan | None = None


def plan_render(
    runner: FfmpegRunner,
    path: Path,
    info: MediaInfo,
    *,
    options: WorkOptions,
    scale: int,
    segment_seconds: Fraction,
    segment_max_output_pixels: int,
    continuous: ContinuousCopy | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    release: EarlyRelease | None = None,
) -> tuple[RenderPlan, list[SegmentPlan]]:
    """Read the whole video, or the part of it, once and plan its render.

    `segment_seconds` bounds a segment's length, `segment_max_output_pixels` its output pixels; a segment has at least
    one upscaled frame with all its repeats, and more than the bounds allow where decoding begins far before it. A plan
    that an earlier attempt began goes on with the bounds of its own. `scale` is the engine's. `continuous`: how `path`
    was made, if it is a copy. `release` gets segments early. Raises PermanentError if the video cannot be rendered,
    Canceled once `cancelled` returns True, FfmpegError if ffmpeg fails, and what `release` raises.
    """
    form = options.form
    colour = plan_colour(info.video, scale=scale, size=options.size, codec=form.chosen_codec)
    codec = form.chosen_codec or choose_codec(colour.target)
    metadata = read_source_metadata(runner, path, info, codec=codec, deinterlace=options.deinterlace)
    transparency = plan_transparency(
        runner, path, info.video, form=form, has_layer=metadata.has_alpha_layer, cancelled=cancelled
    )
    if transparency.is_kept:
        colour = plan_colour(
            transparency.video, scale=scale, size=options.size, codec=codec, keeps_alpha=True
        )
    if metadata.deinterlacing is not None and metadata.deinterlacing.by_field:
        info = as_fields(info)
    video = info.video
    begun = None if release is None else release.begun
    if begun is not None:
        segment_seconds = begun.segment_seconds or segment_seconds
        segment_max_output_pixels = begun.segment_max_output_pixels or segment_max_output_pixels
    planner = RenderPlanner(
        info=info,
        colour=colour,
        decoder=transparency.decoder,
        codec=codec,
        container=form.container_name,
        metadata=metadata,
        target_fps=options.target_fps,
        retime=options.retime,
        stabilise=options.stabilise,
        measures_quality=options.measures_quality,
        part=options.part,
        segment_seconds=segment_seconds,
        segment_max_output_pixels=segment_max_output_pixels,
        continuous=continuous,
        release=release,
        reorder=None if begun is None else begun.reorder,
        encoder_rate=None if begun is None else begun.encoder_rate,
    )
    scan_with = partial(
        scan_frames,
        runner,
        path,
        video=video,
        source=colour.source,
        decoded_pix_fmts=colour.decoded_pix_fmts,
        expansion=colour.expansion,
        decoder=transparency.decoder,
        cancelled=cancelled,
        part=planner.ticks,
        seeks_by_pts=seeks_by_pts(info.format_name),
        first_pts=metadata.first_pts,
        listing=info.listing,
    )
    scan = scan_with(
        deinterlacing=planner.deinterlacing, on_frames=planner.settle if planner.may_settle else None
    )
    warnings = [*scan.warnings, *colour.warnings, *metadata.warnings]
    if has_appended_file(path):
        warnings.append(APPENDED_WARNING)
    if transparency.warning is not None:
        warnings.append(transparency.warning)
    elif transparency.may_be_lost and is_transparent(
        runner, path, stream_index=video.index, cancelled=cancelled
    ):
        warnings.append(ALPHA_WARNING)
    if scan.has_interlaced and not metadata.is_interlaced:
        # Later frames are interlaced, although the first ones are not.
        planner.deinterlacing, more = plan_deinterlacing(
            runner, info, has_interlaced=True, asked=options.deinterlace
        )
        warnings += more
        if planner.deinterlacing is not None:
            scan = scan_with(deinterlacing=planner.deinterlacing)
    return planner.plan(scan, warnings)


@dataclass(kw_only=True)
class RenderPlanner:
    """Plans one render from scans of all its frames, or of the first ones.

    `settled` are the segments that were taken, which later plans begin with. What all segments share is decided by the
    first of them: `reorder` and `encoder_rate`, None until then.
    """

    info: MediaInfo
    colour: ColourPlan
    metadata: SourceMetadata
    target_fps: Fraction | None
    retime: Retime
    segment_seconds: Fraction
    segment_max_output_pixels: int
    continuous: ContinuousCopy | None
    release: EarlyRelease | None
    reorder: bool | None
    encoder_rate: Fraction | None
    part: TimeRange | None = None
    decoder: str | None = None
    stabilise: int = 0
    measures_quality: bool = False
    codec: VideoCodec = "h264"
    container: ContainerName = "mp4"
    deinterlacing: Deinterlacing | None = field(init=False)
    settled: Sequence[SegmentPlan] = ()

    def __post_init__(self) -> None:
        self.deinterlacing = self.metadata.deinterlacing if self.metadata.is_interlaced else None

    @property
    def constant_rate(self) -> Fraction | None:
        """The rate of the output, if its frames are evenly spaced whatever the input's are."""
        return self.target_fps or (self.deinterlacing.film_rate if self.deinterlacing is not None else None)

    @property
    def ticks(self) -> TickRange | None:
        """The timestamps of the part's frames, to the microsecond."""
        if self.part is None:
            return None
        video = self.info.video
        start = video.start_pts * video.time_base - self.info.video_begins_at

        def tick(seconds: Fraction) -> int:
            return ceil((start + seconds - HALF_MICROSECOND) / video.time_base)

        return TickRange(
            tick(self.part.start) if self.part.start else -(2**62),
            None if self.part.end is None else tick(self.part.end),
        )

    @property
    def may_settle(self) -> bool:
        """False where the ticks of the output depend on all timestamps, see `plan_output_timeline`."""
        fine = self.info.video.time_base.denominator > MICROSECONDS
        return self.release is not None and (self.constant_rate is not None or not fine)

    def settle(self, scan: FrameScan) -> None:
        """Offer the segments that the rest of the video will not change. `scan`: of the first frames."""
        if not scan.is_trusted:
            return
        assert self.release is not None
        before = self.reorder, self.encoder_rate
        if self.encoder_rate is None:
            self.encoder_rate = self.constant_rate or self.info.video.frame_rate
        planned = self._plan(scan, ())
        render, segments = planned.render, planned.segments
        after = planned.most_discarded if planned.most_discarded > MOST_DISCARDED_FRAMES else 0
        count = max(0, len(segments) - UNSETTLED_SEGMENTS)
        # What the later ones show may change.
        while count and segments[count].first_frame > planned.settled_frames:
            count -= 1
        # A segment may end elsewhere if less follows it than the next one would discard (see `cut_segments`).
        while count and len(scan.timeline.pts) - 1 - segments[count].first_frame < after:
            count -= 1
        fresh = segments[len(self.settled) : count]
        self.reorder = render.reorder
        planned_frames = sum(segment.used_frames for segment in segments[:count])
        share = sum(segment.used_frames for segment in segments) / len(scan.part.pts)
        expected = self.info.video.frames if scan.expected_frames is None else scan.expected_frames
        more = SettledSegments(
            render=render,
            segments=fresh,
            planned_frames=planned_frames,
            expected_frames=round(share * expected),
        )
        if fresh and self.release.take(more):
            self.settled = segments[:count]
        elif not self.settled:
            self.reorder, self.encoder_rate = before

    def plan(self, scan: FrameScan, warnings: Sequence[str]) -> tuple[RenderPlan, list[SegmentPlan]]:
        """The plan of all frames. Begins with other segments than those settled if frames were decoded otherwise."""
        planned = self._plan(scan, warnings)
        return planned.render, planned.segments

    def _plan(self, scan: FrameScan, warnings: Sequence[str]) -> "_Planned":
        if not all(has_frames_of(scan, segment) for segment in self.settled):
            log.warning("settled_segments_discarded", segments=len(self.settled))
            self.settled = ()
        video, colour = self.info.video, self.colour
        late_seconds = scan.late_ticks * video.time_base
        video_start = scan.timeline.pts[0] * video.time_base - late_seconds
        input_start_seconds = input_start(self.info.format_name, self.info.start_seconds, video_start)
        shown = scan.part
        if self.part is not None:
            shown = up_to_end(shown, input_start_seconds + late_seconds, self.part)
            input_start_seconds += self.part.start
        timeline, settled_frames = self._output_timeline(shown, scan)
        timeline = without_equal_neighbours(timeline, scan.checksums[scan.first_frame :])
        timeline = after_frames(timeline, scan.first_frame)
        start_seconds = max(shown.pts[0] * video.time_base - late_seconds, input_start_seconds)
        timeline, offset_ticks = apply_offset(timeline, start_seconds - input_start_seconds)
        output_pixels = colour.target.width * colour.target.height
        used = used_frames(timeline)
        pictures = 1 if self.deinterlacing is None else self.deinterlacing.pictures_per_frame
        frames_before = 0 if self.deinterlacing is None else self.deinterlacing.pictures_before
        after = STABILISED_RADIUS if self.stabilise else 0
        # With the frame before its first, a segment may begin with a pair that is measured (`filter_effect`).
        before = after + 1 if self.stabilise and self.measures_quality else after
        discarded = discarded_before_segments(used, scan, frames_before=frames_before, around=before)
        settled_cuts = list(accumulate((one.used_frames for one in self.settled), initial=0))
        cuts = cut_segments(
            used,
            keyframes=keyframe_cuts(used, scan),
            max_ticks=max(1, floor(self.segment_seconds * timeline.timescale)),
            max_frames=min(MAX_SEGMENT_FRAMES, max(1, self.segment_max_output_pixels // output_pixels)),
            min_frames=MIN_REORDERED_FRAMES if self.reorder else 1,
            discarded=discarded,
            settled=settled_cuts,
        )
        segments = make_segments(
            cuts[len(self.settled) :],
            used=used,
            scan=scan,
            timeline=timeline,
            seeks_by_pts=seeks_by_pts(self.info.format_name),
            frames_before=frames_before,
            discarded=discarded,
            after=self.settled,
            around=(before, after),
        )
        reorder = self.reorder
        if reorder is None:
            shortest = min(one.output_frames for one in segments)
            reorder = len(segments) == 1 or shortest >= MIN_REORDERED_FRAMES
        render = RenderPlan(
            stream_index=video.index,
            source=colour.source,
            target=colour.target,
            decoded_pix_fmts=colour.decoded_pix_fmts,
            source_time_base=video.time_base,
            seekable=scan.is_trusted,
            tags=colour.tags,
            codec=self.codec,
            container=self.container,
            reorder=reorder,
            sample_aspect_ratio=video.sample_aspect_ratio,
            timescale=timeline.timescale,
            total_ticks=timeline.end_tick,
            offset_ticks=offset_ticks,
            input_start_seconds=input_start_seconds,
            frame_count=len(timeline.ticks),
            source_frame_count=-(-len(scan.part.pts) // pictures),
            frame_rate=self.constant_rate or average_rate(scan.part, video.frame_rate),
            segment_count=len(segments),
            retime=self.retime if timeline.between else Retime.NEAREST,
            stabilise=self.stabilise,
            warnings=(*(self.continuous.warnings if self.continuous else ()), *warnings),
            is_turned=video.rotation != 0 or video.is_mirrored,
            continuous=self.continuous,
            deinterlacing=self.deinterlacing,
            expansion=colour.expansion,
            decoder=self.decoder,
            mastering_display=self.metadata.mastering_display,
            content_light=self.metadata.content_light,
            spatial=self.metadata.spatial,
            has_captions=self.metadata.has_captions,
            encoder_rate=self.encoder_rate,
            segment_seconds=self.segment_seconds,
            segment_max_output_pixels=self.segment_max_output_pixels,
            part=self.part,
        )
        coding_id = render.coding_id
        named = [replace(one, coding_id=coding_id) for one in segments[len(self.settled) :]]
        return _Planned(
            render=render,
            segments=[*self.settled, *named],
            most_discarded=max(discarded),
            settled_frames=scan.first_frame + settled_frames,
        )

    def _output_timeline(self, shown: SourceTimeline, scan: FrameScan) -> tuple[OutputTimeline, int]:
        """What the output shows of the part's frames, and of how many of these it is final."""
        rate = None if self.deinterlacing is None else self.deinterlacing.film_rate
        count = len(shown.pts)
        if rate is None:
            return plan_output_timeline(shown, target_fps=self.target_fps, retime=self.retime), count
        film = film_of(shown, scan.differences, rate=rate)
        retime = Retime.NEAREST if self.target_fps is None else self.retime
        timeline = plan_output_timeline(film.timeline, target_fps=self.target_fps or rate, retime=retime)
        return film.among_all(timeline, count), film.settled_frames


@dataclass(frozen=True, kw_only=True)
class _Planned:
    """`most_discarded`: before any used frame; `settled_frames`: so many of the video's, whatever follows."""

    render: RenderPlan
    segments: list[SegmentPlan]
    most_discarded: int
    settled_frames: int


def seeks_by_pts(format_name: str) -> bool:
    """Whether ffmpeg seeks by presentation time in this format (ffmpeg's name)."""
    return any(name in SEEKS_BY_PTS for name in format_name.split(","))
