"""Renders a whole video on this machine, without server, database or queue."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from app.platform.errors import Canceled, ConfigurationError
from app.platform.media.codecs import VmafTarget
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.probe import MediaInfo
from app.platform.media.work_options import WorkOptions
from app.platform.settings import Settings
from models.added import find_engine
from worker.pipeline import FrameUpscaler, run_segment
from worker.video.continuous_copy import continuous_source
from worker.video.muxer import FinishedVideo, finish_render
from worker.video.plan import RenderPlan
from worker.video.quality_search import EncodedQuality, FoundQuality
from worker.video.segmenter import plan_render
from worker.video.timestamp_check import WrittenVideo
from worker.video.vmaf import NO_VMAF, measures_vmaf, model_for

if TYPE_CHECKING:
    from worker.video.filter_effect import FilteredPair
    from worker.video.quality import MeasuredQuality


@dataclass(frozen=True, kw_only=True)
class LocalRender:
    """The result. `quality` is None if it was not asked for, or, with a warning, if it could not be measured.
    `encoded_quality` is what the search for a target found, None without a target."""

    video: FinishedVideo
    quality: "MeasuredQuality | None"
    encoded_quality: EncodedQuality | None = None


@dataclass(frozen=True, kw_only=True)
class LocalProgress:
    """`done` of `total` frames are upscaled."""

    done: int
    total: int


def upscale_file(
    *,
    runner: FfmpegRunner,
    source: Path,
    info: MediaInfo,
    destination: Path,
    options: WorkOptions,
    settings: Settings,
    make_upscaler: Callable[[RenderPlan], FrameUpscaler],
    work_directory: Path,
    on_progress: Callable[[LocalProgress], None],
    thumbnail: Path | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> LocalRender:
    """Upscale `source` to the file `destination`, which appears complete or not at all.

    `settings` bound segments and waits, and say what `options` leave open.
    Segments are kept in a private directory under `work_directory`. `make_upscaler` is called once the frame formats
    are known. Raises ConfigurationError for a target where ffmpeg does not measure VMAF, and what `plan_render`,
    `run_segment` and `finish_render` raise.
    """
    quality = options.form.quality or settings.output_quality
    if isinstance(quality, VmafTarget) and not measures_vmaf(runner):
        raise ConfigurationError(NO_VMAF)
    with TemporaryDirectory(prefix="upscale-", dir=work_directory) as name:
        directory = Path(name)
        source, info, continuous = continuous_source(
            runner, source, info, directory=directory, cancelled=cancelled
        )
        render, segments = plan_render(
            runner,
            source,
            info,
            options=options,
            scale=find_engine(options.engine, settings.weights_dir).scale,
            segment_seconds=settings.segment_seconds,
            segment_max_output_pixels=settings.segment_max_output_pixels,
            continuous=continuous,
            cancelled=cancelled,
        )
        total = sum(segment.used_frames for segment in segments)
        on_progress(LocalProgress(done=0, total=total))
        upscaler = make_upscaler(render)
        done = 0
        files = []
        written: list[WrittenVideo] = []
        found: list[tuple[int, FoundQuality]] = []
        filtered_pairs: list[FilteredPair] = []
        for segment in segments:
            if cancelled():
                raise Canceled()
            before = done
            path = directory / f"segment-{segment.index}{render.segment_file.suffix}"
            result = run_segment(
                runner=runner,
                source=source,
                destination=path,
                render=render,
                segment=segment,
                upscaler=upscaler,
                quality=quality,
                on_frame=lambda frames, before=before: on_progress(  # type: ignore[misc]
                    LocalProgress(done=before + frames, total=total)
                ),
                cancelled=cancelled,
                stall_seconds=settings.stall_seconds,
                measures_filter=options.measures_quality,
            )
            done += segment.used_frames
            files.append(path)
            # Those between are as long as the film.
            written = [*written[:1], result.video]
            if result.quality is not None:
                found.append((segment.output_frames, result.quality))
            filtered_pairs += result.filtered_pairs
        video = finish_render(
            runner=runner,
            source=source,
            segment_files=files,
            render=render,
            segments=segments,
            destination=destination,
            thumbnail=thumbnail,
            cancelled=cancelled,
            listing=info.listing,
            outer=(written[0], written[-1]),
        )
        encoded = None
        if isinstance(quality, VmafTarget):
            encoded = EncodedQuality.of(quality, found, model=model_for(render.target))
            if encoded.warning:
                video = replace(video, warnings=(*video.warnings, encoded.warning))
        if not options.measures_quality:
            return LocalRender(video=video, quality=None, encoded_quality=encoded)
        # Imports OpenCV.
        from worker.video.quality import NOT_MEASURED, measure_if_possible

        try:
            measured = measure_if_possible(
                runner,
                source=source,
                output=destination,
                render=render,
                segments=segments,
                filtered_pairs=filtered_pairs,
                cancelled=cancelled,
                stall_seconds=settings.stall_seconds,
            )
        except Canceled:
            destination.unlink(missing_ok=True)
            raise
        if measured is None:
            video = replace(video, warnings=(*video.warnings, NOT_MEASURED))
        return LocalRender(video=video, quality=measured, encoded_quality=encoded)
