"""A render's options between requests, its row, and its work: the one place that knows which column holds which."""

from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any

from app.platform.media.codecs import OutputFormat, Quality
from app.platform.media.containers import ContainerName, VideoCodec
from app.platform.media.output_size import OutputSize, output_size
from app.platform.media.picture_options import Deinterlace
from app.platform.media.rates import Retime, TargetRate
from app.platform.media.time_range import TimeRange, time_range
from app.renders.options import RenderOptions
from app.renders.tables import Render
from models.catalog import Engine

# The columns whose names are not those of their options.
COLUMN_OF = {"start": "start_seconds", "end": "end_seconds", "metadata": "user_metadata"}


@dataclass(frozen=True, kw_only=True)
class WorkOptions:
    """The options that decide what the output is, by the names of their columns. The defaults are those of requests."""

    engine: str
    target_fps: Fraction | None = None
    retime: Retime = Retime.NEAREST
    start_seconds: Fraction | None = None
    end_seconds: Fraction | None = None
    scale: int | None = None
    max_width: int | None = None
    max_height: int | None = None
    strength: float = 1.0
    grain: float = 0.0
    deinterlace: Deinterlace = Deinterlace.AUTO
    codec: VideoCodec | None = None
    container: ContainerName | None = None
    output_quality: Quality | None = None
    measures_quality: bool = False

    @property
    def part(self) -> TimeRange | None:
        """The part of the file to render; None for all of it."""
        return time_range(self.start_seconds, self.end_seconds)

    @property
    def size(self) -> OutputSize | None:
        """The output's size; None for the engine's."""
        return output_size(self.scale, self.max_width, self.max_height)

    @property
    def form(self) -> OutputFormat:
        """What was asked of the output's codec, container and quality."""
        return OutputFormat(codec=self.codec, container=self.container, quality=self.output_quality)


WORK_OPTIONS = tuple(field.name for field in fields(WorkOptions))


def columns_of(options: RenderOptions) -> dict[str, Any]:
    """What a row holds of a request's options."""
    values = {COLUMN_OF.get(name, name): getattr(options, name) for name in RenderOptions.model_fields}
    return values | {
        "engine": options.engine.id,
        "target_fps": options.exact_rate,
        "target_fps_sent": options.target_fps and options.target_fps.sent,
        "codec": options.form.chosen_codec,
    }


def options_of(render: Render, *, engine: Engine) -> RenderOptions:
    """The options of an existing render, which were checked when it was made."""
    values = {name: getattr(render, COLUMN_OF.get(name, name)) for name in RenderOptions.model_fields}
    return RenderOptions.model_construct(**values | {"engine": engine, "target_fps": _target_rate(render)})


def _target_rate(render: Render) -> TargetRate | None:
    if render.target_fps is None:
        return None
    return TargetRate(exact=render.target_fps, sent=render.target_fps_sent or float(render.target_fps))


def work_options_of(options: RenderOptions) -> WorkOptions:
    """As a render's work would read them."""
    columns = columns_of(options)
    return WorkOptions(**{name: columns[name] for name in WORK_OPTIONS})
