"""What a render's work reads of its options. Knows neither rows nor requests, so that a local render needs neither."""

from dataclasses import dataclass, fields
from fractions import Fraction

from app.platform.media.codecs import OutputFormat, encoder_quality
from app.platform.media.containers import ContainerName, VideoCodec
from app.platform.media.output_size import OutputSize, output_size
from app.platform.media.picture_options import Deinterlace
from app.platform.media.rates import Retime
from app.platform.media.time_range import TimeRange, time_range


@dataclass(frozen=True, kw_only=True)
class WorkOptions:
    """The options that decide what the output is, by the names of their columns, as workers and `regen upscale` read
    them. The defaults are those of requests."""

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
    stabilise: int = 0
    deinterlace: Deinterlace = Deinterlace.AUTO
    codec: VideoCodec | None = None
    container: ContainerName | None = None
    output_quality: str | None = None
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
        return OutputFormat(
            codec=self.codec, container=self.container, quality=encoder_quality(self.output_quality)
        )


WORK_OPTIONS = tuple(field.name for field in fields(WorkOptions))
