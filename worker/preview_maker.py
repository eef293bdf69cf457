"""One preview: a frame of a video, the part of it that is shown, and both as pictures, before and after."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path

from app.platform.errors import Canceled, PermanentError, RequestError
from app.platform.media.areas import Area
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.limits import MediaLimits
from app.platform.settings import Settings
from app.previews.service import PreviewJob
from models.catalog import DEFAULT_ENGINE, ENGINES, Engine
from worker.inference.frames import FrameFormat
from worker.networks import Networks
from worker.pictures import (
    CHROMA_MARGIN,
    TONE_MAPPED_WARNING,
    PictureKind,
    area_around,
    cut_out,
    is_hdr,
    require_tone_mapping,
    rgb_picture,
    write_picture,
)
from worker.video.frame_grab import Footage, Frame, look_at, read_frame

# The rest is for the segment in hand.
MEMORY_SHARE = 0.25
# Larger pictures are JPEGs: lossless they would take minutes to fetch.
MAX_PNG_PIXELS = 8_000_000
# Of context around a crop on a CPU with an engine whose full overlap would be most of the work.
CPU_MARGIN = 24
# How much smaller a crop on a CPU is with such an engine, and how much larger one that was asked for may be.
SLOW_ENGINE_SHARE = 4
WANTED_TIMES_MORE = 4

CROPPED_WARNING = (
    "This server computes on a CPU: the images show a part of the frame. Choose which with `crop`."
)
REDUCED_WARNING = "This server computes on a CPU: the crop was made smaller, around its middle."
TOO_LARGE_WARNING = "The whole would be larger than this server makes; the images show its middle."


@dataclass(frozen=True, kw_only=True)
class MadePreview:
    """Two pictures of one kind. `crop` None: they show the whole frame."""

    before: Path
    after: Path
    kind: PictureKind
    crop: Area | None
    warnings: list[str]


class PreviewMaker:
    """Keeps its network and what it knows of the last video until `release`: a next preview is often of the same. For
    one thread.
    """

    def __init__(self, settings: Settings, runner: FfmpegRunner) -> None:
        self._settings = settings
        self._runner = runner
        self._limits = MediaLimits.from_settings(settings)
        self._networks = Networks(settings, memory_share=MEMORY_SHARE)
        self._footage: tuple[str, Footage] | None = None

    def make(
        self, job: PreviewJob, source: Path, directory: Path, *, cancelled: Callable[[], bool]
    ) -> MadePreview:
        """Make the preview of the file `source` in `directory`.

        Raises PermanentError when there can be none, Canceled when `cancelled` says so, ConfigurationError,
        TransientError and FfmpegError.
        """
        engine = ENGINES[job.engine]
        footage = self._look_at(job.file_id, source, scale=engine.scale, cancelled=cancelled)
        whole, tags = footage.colour.source, footage.colour.tags
        on_cpu = not self._networks.is_accelerated
        crop, warnings = choose_crop(
            job.crop, frame=whole, engine=engine, settings=self._settings, on_cpu=on_cpu
        )
        if is_hdr(tags):
            require_tone_mapping(self._runner)
            warnings.append(TONE_MAPPED_WARNING)
        # Long before its end ffmpeg may have nothing to show but that it decodes.
        stall_seconds = self._runner.limits.wall_seconds
        frame = read_frame(
            self._runner, footage, job.at_seconds, cancelled=cancelled, stall_seconds=stall_seconds
        )
        area = area_around(crop, margin=self._margin(engine, on_cpu=on_cpu), frame=whole)
        part, part_format = cut_out(frame, whole, area)
        scaled = area.enlarged(engine.scale)
        target = replace(footage.colour.target, width=scaled.width, height=scaled.height)
        upscaler = self._networks.upscaler(engine_id=engine.id, source=part_format, target=target)
        if cancelled():
            raise Canceled()
        (enlarged,) = upscaler.upscale([part])
        inner = crop.within(area)
        kind: PictureKind = "png" if crop.pixels * engine.scale**2 <= MAX_PNG_PIXELS else "jpg"
        before, after = directory / f"before.{kind}", directory / f"after.{kind}"
        self._write(part, part_format, inner, before, kind=kind, footage=footage)
        self._write(enlarged, target, inner.enlarged(engine.scale), after, kind=kind, footage=footage)
        is_whole = (crop.width, crop.height) == (whole.width, whole.height)
        return MadePreview(
            before=before, after=after, kind=kind, crop=None if is_whole else crop, warnings=warnings
        )

    def release(self) -> None:
        """Give the memory back, the device's too."""
        self._footage = None
        self._networks.release()

    def _look_at(self, file_id: str, source: Path, *, scale: int, cancelled: Callable[[], bool]) -> Footage:
        if self._footage is None or self._footage[0] != file_id:
            try:
                footage = look_at(self._runner, source, scale=scale, limits=self._limits, cancelled=cancelled)
            except RequestError as error:
                raise PermanentError(error.message, detail=error.detail) from error
            self._footage = file_id, footage
        return replace(self._footage[1], path=source)

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
        footage: Footage,
    ) -> None:
        tags = footage.colour.tags
        picture = rgb_picture(frame, frame_format, area, bits=16 if is_hdr(tags) else 8)
        ratio = footage.info.video.sample_aspect_ratio
        write_picture(self._runner, picture, path, kind=kind, tags=tags, sample_aspect_ratio=ratio)


def choose_crop(
    wanted: Area | None, *, frame: FrameFormat, engine: Engine, settings: Settings, on_cpu: bool
) -> tuple[Area, list[str]]:
    """Which part of the frame is made, and what is to be said of it."""
    area = Area(x=0, y=0, width=frame.width, height=frame.height) if wanted is None else wanted
    most = settings.max_output_pixels // engine.scale**2
    if on_cpu:
        share = 1 if engine.id == DEFAULT_ENGINE else SLOW_ENGINE_SHARE
        times = 1 if wanted is None else WANTED_TIMES_MORE
        most = min(most, settings.preview_cpu_pixels // share * times)
    if area.pixels <= most:
        return area, []
    factor = sqrt(most / area.pixels)
    smaller = area.centred(width=max(1, int(area.width * factor)), height=max(1, int(area.height * factor)))
    if not on_cpu:
        return smaller, [TOO_LARGE_WARNING]
    return smaller, [CROPPED_WARNING if wanted is None else REDUCED_WARNING]
