"""Upscales one local file with the parts of the worker."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from app.platform.garbage import without_collection
from app.platform.media.codecs import DEFAULT_FORMAT, OutputFormat
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.info import MediaInfo
from app.platform.media.limits import MediaLimits, check_output
from app.platform.media.output_size import OutputSize
from app.platform.media.picture_options import Deinterlace
from app.platform.media.probe import probe_video
from app.platform.media.rates import Retime
from app.platform.media.time_range import TimeRange, part_of_video
from app.platform.settings import Settings
from models.added import find_engine

if TYPE_CHECKING:
    from worker.loaded_upscaler import Networks, TypedUpscaler
    from worker.local import LocalProgress, LocalRender
    from worker.video.plan import RenderPlan


def render_locally(  # noqa: PLR0913 - the options of a render
    settings: Settings,
    *,
    source: Path,
    destination: Path,
    engine_id: str,
    target_fps: Fraction | None,
    retime: Retime,
    part: TimeRange | None = None,
    size: OutputSize | None = None,
    form: OutputFormat = DEFAULT_FORMAT,
    strength: float = 1.0,
    grain: float = 0.0,
    deinterlace: Deinterlace = Deinterlace.AUTO,
    measures_quality: bool,
    work_directory: Path,
    on_progress: Callable[[LocalProgress], None],
    cancelled: Callable[[], bool],
) -> tuple[MediaInfo, LocalRender]:
    """Upscale one file within the configured limits; returns the input's properties and the result.

    Raises only RegenError, with sentences for the user.
    """
    limits = MediaLimits.from_settings(settings)
    runner = FfmpegRunner.for_work(settings)
    scale = find_engine(engine_id, settings.weights_dir).scale
    with ThreadPoolExecutor(1, thread_name_prefix="loading") as loading:
        networks = loading.submit(_load_networks, settings)
        info = probe_video(runner, source, limits=limits)
        shown = info.video.as_fields() if deinterlace is Deinterlace.FIELD else info.video
        asked = part_of_video(shown, part, begins_at=info.video_begins_at)
        check_output(asked, scale=scale, target_fps=target_fps, limits=limits, size=size)
        output = asked.upscaled(scale=scale, target_fps=target_fps, size=size)
        form.check_size(output.width, output.height)
        from worker.local import LocalRenderOptions, upscale_file

        def make_upscaler(plan: RenderPlan) -> TypedUpscaler:
            # Imports torch: before the video is read, that would wait for the other thread.
            from worker.inference.mixing import PictureOptions

            return networks.result().upscaler(
                engine_id=engine_id,
                source=plan.source,
                target=plan.target,
                picture=PictureOptions(strength=strength, grain=grain),
            )

        result = upscale_file(
            runner=runner,
            source=source,
            info=info,
            destination=destination,
            options=LocalRenderOptions(
                scale=scale,
                target_fps=target_fps,
                retime=retime,
                part=part,
                size=size,
                deinterlace=deinterlace,
                form=form,
                quality=settings.output_quality,
                segment_seconds=settings.segment_seconds,
                segment_max_output_pixels=settings.segment_max_output_pixels,
                stall_seconds=settings.stall_seconds,
                measures_quality=measures_quality,
            ),
            make_upscaler=make_upscaler,
            work_directory=work_directory,
            on_progress=on_progress,
            cancelled=cancelled,
        )
    return info, result


def _load_networks(settings: Settings) -> Networks:
    """Imports torch, which takes longer than ffprobe and ffmpeg take to read a short video."""
    with without_collection():
        from worker.loaded_upscaler import Networks

    return Networks(settings)
