"""Upscales one local file with the parts of the worker."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from app.platform.garbage import without_collection
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.info import MediaInfo
from app.platform.media.limits import MediaLimits, check_output
from app.platform.media.probe import probe_video
from app.platform.media.time_range import part_of_video
from app.platform.media.work_options import WorkOptions
from app.platform.settings import Settings
from models.added import find_engine

if TYPE_CHECKING:
    from worker.loaded_upscaler import Networks, TypedUpscaler
    from worker.local import LocalProgress, LocalRender
    from worker.video.plan import RenderPlan


def render_locally(
    settings: Settings,
    *,
    source: Path,
    destination: Path,
    options: WorkOptions,
    work_directory: Path,
    on_progress: Callable[[LocalProgress], None],
    cancelled: Callable[[], bool],
) -> tuple[MediaInfo, LocalRender]:
    """Upscale one file within the configured limits; returns the input's properties and the result.

    Raises only RegenError, with sentences for the user.
    """
    limits = MediaLimits.from_settings(settings)
    runner = FfmpegRunner.for_work(settings)
    scale = find_engine(options.engine, settings.weights_dir).scale
    with ThreadPoolExecutor(1, thread_name_prefix="loading") as loading:
        networks = loading.submit(_load_networks, settings)
        info = probe_video(runner, source, limits=limits)
        shown = info.video.deinterlaced(options.deinterlace)
        asked = part_of_video(shown, options.part, begins_at=info.video_begins_at)
        check_output(asked, scale=scale, target_fps=options.target_fps, limits=limits, size=options.size)
        output = asked.upscaled(scale=scale, target_fps=options.target_fps, size=options.size)
        options.form.check_size(output.width, output.height)
        from worker.local import upscale_file

        def make_upscaler(plan: RenderPlan) -> TypedUpscaler:
            # Imports torch: before the video is read, that would wait for the other thread.
            from worker.inference.mixing import PictureOptions
            from worker.loaded_upscaler import UpscalerKey

            return networks.result().upscaler(
                UpscalerKey(
                    engine_id=options.engine,
                    source=plan.source,
                    target=plan.target,
                    picture=PictureOptions(
                        strength=options.strength, grain=options.grain, is_stabilised=plan.stabilise > 0
                    ),
                )
            )

        result = upscale_file(
            runner=runner,
            source=source,
            info=info,
            destination=destination,
            options=options,
            settings=settings,
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
