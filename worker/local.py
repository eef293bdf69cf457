"""Renders a whole video on this machine, without server, database or queue."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from app.platform.errors import Canceled
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.probe import MediaInfo
from app.platform.media.work_options import WorkOptions
from app.platform.settings import Settings
from models.added import find_engine
from worker.pipeline import FrameUpscaler, run_segment
from worker.video.continuous_copy import continuous_source
from worker.video.muxer import FinishedVideo, finish_render
from worker.video.plan import RenderPlan
from worker.video.segmenter import plan_render
from worker.video.timestamp_check import WrittenVideo

if TYPE_CHECKING:
    from worker.video.quality import MeasuredQuality


@dataclass(frozen=True, kw_only=True)
class LocalRender:
    """The result. `quality` is None if it was not asked for, or, with a warning, if it could not be measured."""

    video: FinishedVideo
    quality: "MeasuredQuality | None"


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
    are known. Raises what `plan_render`, `run_segment` and `finish_render` raise.
    """
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
                quality=options.output_quality or settings.output_quality,
                on_frame=lambda frames, before=before: on_progress(  # type: ignore[misc]
                    LocalProgress(done=before + frames, total=total)
                ),
                cancelled=cancelled,
                stall_seconds=settings.stall_seconds,
            )
            done += segment.used_frames
            files.append(path)
            # Those between are as long as the film.
            written = [*written[:1], result]
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
        if not options.measures_quality:
            return LocalRender(video=video, quality=None)
        # Imports OpenCV.
        from worker.video.quality import NOT_MEASURED, measure_if_possible

        try:
            quality = measure_if_possible(
                runner,
                source=source,
                output=destination,
                render=render,
                segments=segments,
                cancelled=cancelled,
                stall_seconds=settings.stall_seconds,
            )
        except Canceled:
            destination.unlink(missing_ok=True)
            raise
        if quality is None:
            video = replace(video, warnings=(*video.warnings, NOT_MEASURED))
        return LocalRender(video=video, quality=quality)
