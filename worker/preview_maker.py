"""Makes a preview: decodes a frame, chooses the crop, upscales it, and writes pictures before and after.

With `stabilise` the frames around it are decoded and upscaled too.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING

from app.platform.errors import Canceled
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.limits import MediaLimits
from app.platform.media.picture_options import STABILISED_RADIUS, Deinterlace
from app.platform.media.rectangles import Area
from app.platform.progress import current_progress
from app.platform.settings import Settings
from app.previews.service import PreviewJob
from models.catalog import DEFAULT_ENGINE, Engine
from worker.accepted_file import accepted_file
from worker.inference.frames import FrameFormat
from worker.inference.grain import measure_noise
from worker.inference.mixing import PictureOptions
from worker.loaded_upscaler import Networks, UpscalerKey
from worker.pictures import (
    CHROMA_MARGIN,
    TONE_MAPPED_WARNING,
    PictureKind,
    cropped,
    expanded,
    is_hdr,
    require_tone_mapping,
    to_rgb,
    write_picture,
)
from worker.video.frame_grab import Frame, IndexedVideo, index_video, read_frame

if TYPE_CHECKING:
    from worker.steady_window import SteadyWindow

# Of the device's memory; the rest is for segments.
MEMORY_SHARE = 0.25
# Larger pictures are JPEGs: as PNGs they would take minutes to download.
MAX_PNG_PIXELS = 8_000_000
# Context around a crop on a CPU, for engines whose full overlap would be most of the work.
CPU_MARGIN = 24
# By how much a crop on a CPU is smaller with such an engine, and may be larger if it was requested.
SLOW_ENGINE_DIVISOR = 4
REQUESTED_CROP_FACTOR = 4

CROPPED_WARNING = (
    "This server computes on a CPU: the images show a part of the frame. Choose which with `crop`."
)
REDUCED_WARNING = "This server computes on a CPU: the crop was reduced around its centre."
NOT_STEADY_WARNING = (
    "The frames around this moment are not known for sure; the image shows it without `stabilise`."
)
TOO_LARGE_WARNING = "The whole frame would exceed this server's limit; the images show its centre."


@dataclass(frozen=True, kw_only=True)
class PreviewResult:
    """Two pictures of one kind. `crop` is None if they show the whole frame."""

    before: Path
    after: Path
    kind: PictureKind
    crop: Area | None
    warnings: list[str]


class PreviewMaker:
    """Makes previews. Keeps the network and the last video's index until `release`: the next preview is often of the
    same video. Not thread-safe.
    """

    def __init__(self, settings: Settings, runner: FfmpegRunner) -> None:
        self._settings = settings
        self._runner = runner
        self._limits = MediaLimits.from_settings(settings)
        self._networks = Networks(settings, memory_share=MEMORY_SHARE)
        self._video: tuple[tuple[str, Deinterlace], IndexedVideo] | None = None

    def make(
        self, job: PreviewJob, source: Path, directory: Path, *, cancelled: Callable[[], bool]
    ) -> PreviewResult:
        """Make the preview of the file `source` in `directory`.

        Raises PermanentError if there can be none, Canceled once `cancelled` returns True, ConfigurationError,
        TransientError and FfmpegError.
        """
        engine = self._networks.engine(job.engine)
        video = self._indexed(job, source, directory, scale=engine.scale, cancelled=cancelled)
        whole, tags = video.colour.source, video.colour.tags
        on_cpu = not self._networks.is_accelerated
        crop, warnings = choose_crop(
            job.crop,
            frame=whole,
            engine=engine,
            settings=self._settings,
            on_cpu=on_cpu,
            pictures=2 * STABILISED_RADIUS + 1 if job.stabilise else 1,
        )
        if is_hdr(tags):
            require_tone_mapping(self._runner)
            warnings.append(TONE_MAPPED_WARNING)
        window = self._window(job, video, cancelled=cancelled)
        if window is None and job.stabilise:
            warnings.append(NOT_STEADY_WARNING)
        margin = self._margin(engine, on_cpu=on_cpu)
        if window is None:
            frame = read_frame(
                self._runner,
                video,
                job.at_seconds,
                cancelled=cancelled,
                stall_seconds=self._runner.limits.wall_seconds,
            )
            area = expanded(crop, margin=margin, frame=whole)
            part, part_format = cropped(frame, whole, area)
        else:
            frame = window.wanted
            area = window.area_around(crop, margin=margin + window.reach(crop))
            window = window.of_part(area)
            part, part_format = window.wanted, window.source
        columns, rows = job.factors
        scaled = area.enlarged(columns, rows)
        target = replace(video.colour.target, width=scaled.width, height=scaled.height)
        picture = PictureOptions(strength=job.strength, grain=job.grain, is_stabilised=window is not None)
        upscaler = self._networks.upscaler(
            UpscalerKey(engine_id=engine.id, source=part_format, target=target, picture=picture)
        )
        if cancelled():
            raise Canceled()
        noise = measure_noise(frame, whole).of_part(x=area.x, y=area.y) if job.grain else None
        pictures = 1 if window is None else len(window.frames)
        with current_progress().allowing(pictures * upscaler.longest_batch_seconds):
            if window is None:
                (enlarged,) = upscaler.upscale([part], noise=noise)
            else:
                steady = upscaler.stabilised(noise=noise)
                ((enlarged, _),) = [*steady.upscale(window.frames), *steady.finish()]
        inner = crop.within(area)
        kind: PictureKind = "png" if crop.pixels * columns * rows <= MAX_PNG_PIXELS else "jpg"
        before, after = directory / f"before.{kind}", directory / f"after.{kind}"
        self._write(part, part_format, inner, before, kind=kind, video=video)
        shown = crop.enlarged(columns, rows).within(scaled)
        self._write(enlarged, target, shown, after, kind=kind, video=video)
        shows_all = (crop.width, crop.height) == (whole.width, whole.height)
        return PreviewResult(
            before=before, after=after, kind=kind, crop=None if shows_all else crop, warnings=warnings
        )

    def release(self) -> None:
        """Free the memory, the device's too."""
        self._video = None
        self._networks.release()

    def _indexed(
        self, job: PreviewJob, source: Path, directory: Path, *, scale: int, cancelled: Callable[[], bool]
    ) -> IndexedVideo:
        wanted = (job.file_id, job.deinterlace)
        if self._video is not None and self._video[0] == wanted:
            return replace(self._video[1], path=source)
        with accepted_file():
            video = index_video(
                self._runner,
                source,
                scale=scale,
                limits=self._limits,
                directory=directory,
                deinterlace=job.deinterlace,
                cancelled=cancelled,
            )
        # A copy is gone with the directory.
        self._video = (wanted, video) if video.path == source else None
        return video

    def _window(
        self, job: PreviewJob, video: IndexedVideo, *, cancelled: Callable[[], bool]
    ) -> "SteadyWindow | None":
        """The frames that are averaged; None without `stabilise`, and where they are not known."""
        if not job.stabilise:
            return None
        # Imports OpenCV, which few previews need.
        from worker.steady_window import read_steady_window

        return read_steady_window(
            self._runner,
            video,
            job.at_seconds,
            strength=job.stabilise,
            cancelled=cancelled,
            stall_seconds=self._runner.limits.wall_seconds,
        )

    def _margin(self, engine: Engine, *, on_cpu: bool) -> int:
        """Returns how many pixels around a crop go through the network with it, for the result of a whole frame."""
        margin = self._networks.tile_overlap(engine.id)
        if on_cpu and engine.id != DEFAULT_ENGINE:
            margin = min(margin, CPU_MARGIN)
        return margin + CHROMA_MARGIN

    def _write(
        self,
        frame: Frame,
        frame_format: FrameFormat,
        area: Area,
        path: Path,
        *,
        kind: PictureKind,
        video: IndexedVideo,
    ) -> None:
        tags = video.colour.tags
        picture = to_rgb(frame, frame_format, area, bits=16 if is_hdr(tags) else 8)
        ratio = video.info.video.sample_aspect_ratio
        write_picture(self._runner, picture, path, kind=kind, tags=tags, sample_aspect_ratio=ratio)


def choose_crop(
    requested: Area | None,
    *,
    frame: FrameFormat,
    engine: Engine,
    settings: Settings,
    on_cpu: bool,
    pictures: int = 1,
) -> tuple[Area, list[str]]:
    """The part of the frame that is made, and warnings. `pictures`: how many go through the network for it."""
    area = Area(x=0, y=0, width=frame.width, height=frame.height) if requested is None else requested
    most = settings.max_output_pixels // engine.scale**2
    if on_cpu:
        share = 1 if engine.id == DEFAULT_ENGINE else SLOW_ENGINE_DIVISOR
        times = 1 if requested is None else REQUESTED_CROP_FACTOR
        most = min(most, settings.preview_cpu_pixels // (share * pictures) * times)
    if area.pixels <= most:
        return area, []
    factor = sqrt(most / area.pixels)
    smaller = area.centred(width=max(1, int(area.width * factor)), height=max(1, int(area.height * factor)))
    if not on_cpu:
        return smaller, [TOO_LARGE_WARNING]
    return smaller, [CROPPED_WARNING if requested is None else REDUCED_WARNING]
