"""The options of a render, each with its parser and its description."""

import json
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import partial
from typing import Annotated, Any, Self, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from app.engines.service import require_engine
from app.platform.errors import InvalidRequest
from app.platform.media.codecs import (
    OUTPUT_QUALITY_PATTERN,
    OutputFormat,
    Quality,
    encoder_quality,
    parse_codec,
    parse_container,
    parse_output_quality,
)
from app.platform.media.containers import ContainerName, VideoCodec
from app.platform.media.info import VideoProperties
from app.platform.media.limits import MediaLimits, check_output
from app.platform.media.output_size import (
    MOST_SCALE,
    MOST_SIDE,
    OutputSize,
    output_size,
    parse_scale,
    parse_side,
)
from app.platform.media.picture_options import (
    MOST_STABILISE,
    Deinterlace,
    parse_deinterlace,
    parse_share,
    parse_stabilise,
)
from app.platform.media.rates import MAX_FPS, MIN_FPS, Retime, TargetRate, parse_retime
from app.platform.media.time_range import TimeRange, parse_moment, part_of_video, time_range
from app.platform.outbound import MOST_URL_CHARACTERS
from app.platform.quoting import received
from app.webhooks.urls import MOST_DESTINATION_CHARACTERS, parse_destination, parse_webhook_url
from models.catalog import DEFAULT_ENGINE, ENGINES, Engine

# The key of a validation's context: the engines of this moment, by id.
ENGINES_CONTEXT = "engines"
EXACT_RATE = "The rate that follows from `target_fps`, as a fraction: `30000/1001` for 29.97, `25/1` for 25."
RATE_PATTERN = "^[0-9]+/[0-9]+$"
LEAST_PRIORITY, MOST_PRIORITY = -100, 100
MOST_FACTS, MOST_NAME_CHARACTERS, MOST_FACT_CHARACTERS = 20, 40, 500
MOST_CANCEL_SECONDS = 30 * 24 * 3600
# As JavaScript and Python, PHP, and a browser's check box write them.
TRUE, FALSE = ("true", "1", "on"), ("false", "0", "off")


def parse_priority(text: str) -> int:
    """A render's priority among its user's own. Raises InvalidRequest unless it is an integer within the range."""
    whole = re.fullmatch(r"([+-]?[0-9]{1,3})(?:\.0+)?", text.strip())
    if whole and LEAST_PRIORITY <= int(whole[1]) <= MOST_PRIORITY:
        return int(whole[1])
    raise InvalidRequest(
        f"`priority` must be a whole number from {LEAST_PRIORITY} to {MOST_PRIORITY}{received(text)}"
    )


def parse_measures_quality(text: str) -> bool:
    """Whether to measure the output's quality. Raises InvalidRequest for a text that is not a truth value."""
    if text.lower() in TRUE or text.lower() in FALSE:
        return text.lower() in TRUE
    raise InvalidRequest(f"`quality` must be true or false{received(text)}")


def parse_metadata(text: str) -> dict[str, str]:
    """A user's own facts of a render. Raises InvalidRequest unless it is a small JSON object of texts."""
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError):
        facts = None
    if (
        isinstance(facts, dict)
        and len(facts) <= MOST_FACTS
        and all(_is_text(name, MOST_NAME_CHARACTERS) and name for name in facts)
        and all(isinstance(fact, str) and _is_text(fact, MOST_FACT_CHARACTERS) for fact in facts.values())
    ):
        return facts
    raise InvalidRequest(
        f"`metadata` must be a JSON object of at most {MOST_FACTS} texts, with names of at most "
        f"{MOST_NAME_CHARACTERS} and texts of at most {MOST_FACT_CHARACTERS} characters{received(text)}"
    )


def _is_text(text: str, most_characters: int) -> bool:
    """Whether databases and answers can hold it: without NUL and halves of surrogate pairs."""
    return len(text) <= most_characters and re.search("[\0\ud800-\udfff]", text) is None


def parse_cancel_after(text: str) -> int:
    """Seconds. Raises InvalidRequest unless it is a whole number from 1 to those of 30 days."""
    whole = re.fullmatch(r"\+?0*([0-9]{1,7})(?:\.0+)?", text.strip())
    if whole and 1 <= int(whole[1]) <= MOST_CANCEL_SECONDS:
        return int(whole[1])
    raise InvalidRequest(
        f"`cancel_after` must be a whole number of seconds from 1 to {MOST_CANCEL_SECONDS}{received(text)}"
    )


def _read(parse: Callable[[str], Any], value: Any) -> Any:
    """The option for a field's text; returns other values unchanged. Raises ValueError."""
    if not isinstance(value, str):
        return value
    try:
        return parse(value)
    except InvalidRequest as error:
        raise ValueError(error.message) from error


_SIDE = WithJsonSchema({"type": "integer", "minimum": 2, "maximum": MOST_SIDE})
_SHARE = WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1})
_MOMENT = WithJsonSchema({"type": ["number", "string"], "minimum": 0})


def _read_engine(value: Any, info: ValidationInfo) -> Any:
    """The engine of that id, among those of the context if it names any."""
    engines: Mapping[str, Engine] = (info.context or {}).get(ENGINES_CONTEXT, ENGINES)
    return _read(partial(require_engine, engines=engines), value)


class RenderOptions(BaseModel):
    """How to render a file. The defaults apply to a request that names no options.

    Each option may be given as text. `target_fps` is None for the input's own rate. `priority` orders the user's own
    renders, `webhook_url` receives the render's events.
    """

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    engine: Annotated[
        InstanceOf[Engine],
        BeforeValidator(_read_engine),
        WithJsonSchema({"type": "string", "examples": list(ENGINES)}),
    ] = Field(
        ENGINES[DEFAULT_ENGINE],
        description="One of `GET /v1/engines`.",
        json_schema_extra={"default": DEFAULT_ENGINE},
    )
    target_fps: Annotated[
        InstanceOf[TargetRate] | None,
        BeforeValidator(partial(_read, TargetRate.parse)),
        WithJsonSchema({"type": "number", "minimum": MIN_FPS, "maximum": MAX_FPS}),
    ] = Field(
        None,
        description="The output's frame rate; rates such as 29.97 mean n*1000/1001. Default: the input's.",
    )
    retime: Annotated[
        Retime,
        BeforeValidator(partial(_read, parse_retime)),
        WithJsonSchema({"type": "string", "enum": list(Retime)}),
    ] = Field(
        Retime.NEAREST,
        description="With `target_fps`: how frames between two input frames are made. `nearest`: one of them; "
        "`blend`: both, mixed; `motion`: both, moved along their motion.",
    )
    start: Annotated[
        InstanceOf[Fraction] | None,
        BeforeValidator(partial(_read, partial(parse_moment, name="start"))),
        _MOMENT,
    ] = Field(
        None,
        description="Render only from here on: seconds, or a time such as `00:01:23.500`, on the file's clock. "
        "Default: the file's start.",
    )
    end: Annotated[
        InstanceOf[Fraction] | None,
        BeforeValidator(partial(_read, partial(parse_moment, name="end"))),
        _MOMENT,
    ] = Field(None, description="Render only up to here, as `start`. Default: the file's end.")
    scale: Annotated[
        int | None,
        BeforeValidator(partial(_read, parse_scale)),
        WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MOST_SCALE}),
    ] = Field(
        None,
        description="How many times as wide and high the output is; below 4, it is reduced from four times. "
        "Default: 4.",
    )
    max_width: Annotated[
        int | None,
        BeforeValidator(partial(_read, partial(parse_side, name="max_width"))),
        _SIDE,
    ] = Field(
        None,
        description="The most pixels in a row of the output, which is as large as this and `max_height` allow, up to "
        "four times.",
    )
    max_height: Annotated[
        int | None,
        BeforeValidator(partial(_read, partial(parse_side, name="max_height"))),
        _SIDE,
    ] = Field(None, description="The most rows of the output.")
    strength: Annotated[
        float, BeforeValidator(partial(_read, partial(parse_share, name="strength"))), _SHARE
    ] = Field(
        1,
        description="How much of the network's picture the output holds: 1 is all of it, 0 a plain enlargement; in "
        "between the two are mixed.",
    )
    grain: Annotated[float, BeforeValidator(partial(_read, partial(parse_share, name="grain"))), _SHARE] = (
        Field(
            0, description="How much of the input's noise is put back after the network, which takes it away."
        )
    )
    stabilise: Annotated[
        int,
        BeforeValidator(partial(_read, parse_stabilise)),
        WithJsonSchema({"type": "integer", "minimum": 0, "maximum": MOST_STABILISE}),
    ] = Field(
        0,
        description="How far flicker is averaged away over neighbouring frames, along their motion: 0 is not at all, 3 "
        "the most.",
    )
    deinterlace: Annotated[
        Deinterlace,
        BeforeValidator(partial(_read, parse_deinterlace)),
        WithJsonSchema({"type": "string", "enum": list(Deinterlace)}),
    ] = Field(
        Deinterlace.AUTO,
        description="`auto`: frames marked as interlaced become one frame each; `off`: none are changed; `frame`: all "
        "become one each; `field`: all become two each, at twice the rate; `detelecine`: those of a film, 24 a second, "
        "are put together out of 60 fields (inverse telecine).",
    )
    codec: Annotated[
        VideoCodec | None,
        BeforeValidator(partial(_read, parse_codec)),
        WithJsonSchema({"type": "string", "enum": list(get_args(VideoCodec))}),
    ] = Field(
        None,
        description="The output's codec. Default: `h264`, or `hevc` for more than 8 bits and for large frames; "
        "`vp9` in WebM. `prores`, `ffv1`, and `vp9` outside MP4 keep transparency.",
    )
    container: Annotated[
        ContainerName | None,
        BeforeValidator(partial(_read, parse_container)),
        WithJsonSchema({"type": "string", "enum": list(get_args(ContainerName))}),
    ] = Field(
        None,
        description="The kind of the output's file. Default: `mp4`; for ProRes `mov`, for FFV1 `mkv`.",
    )
    output_quality: Annotated[
        str | None,
        BeforeValidator(partial(_read, parse_output_quality)),
        WithJsonSchema(
            {
                "type": "string",
                "pattern": OUTPUT_QUALITY_PATTERN,
                "examples": [*get_args(Quality), "vmaf=95"],
            }
        ),
    ] = Field(
        None,
        description="How much of the output the encoder keeps, or the VMAF (70 to 99) that it is to reach in as few "
        "bits as that takes. Default: the server's, as far as the codec has it.",
    )
    measures_quality: Annotated[bool, BeforeValidator(partial(_read, parse_measures_quality))] = Field(
        False,
        validation_alias="quality",
        description="Whether to measure how close the output is to the input, and how steady.",
    )
    metadata: Annotated[
        InstanceOf[dict[str, str]] | None,
        BeforeValidator(partial(_read, parse_metadata)),
        WithJsonSchema(
            {
                "type": "object",
                "maxProperties": MOST_FACTS,
                "propertyNames": {"minLength": 1, "maxLength": MOST_NAME_CHARACTERS},
                "additionalProperties": {"type": "string", "maxLength": MOST_FACT_CHARACTERS},
            }
        ),
    ] = Field(
        None, description="Texts of your own, which the render and its webhooks show. In a form, their JSON."
    )
    cancel_after: Annotated[
        int | None,
        BeforeValidator(partial(_read, parse_cancel_after)),
        WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MOST_CANCEL_SECONDS}),
    ] = Field(None, description="In seconds: a render that is not done by then is canceled.")
    priority: Annotated[
        int,
        BeforeValidator(partial(_read, parse_priority)),
        WithJsonSchema({"type": "integer", "minimum": LEAST_PRIORITY, "maximum": MOST_PRIORITY}),
    ] = Field(0, description="Your renders with a higher priority come first.")
    webhook_url: Annotated[
        str | None,
        BeforeValidator(partial(_read, parse_webhook_url)),
        WithJsonSchema({"type": "string", "format": "uri", "maxLength": MOST_URL_CHARACTERS}),
    ] = Field(
        None,
        description="An http or https address that receives this render's events (queued, processing, completed, "
        "failed), in addition to your webhooks.",
    )

    destination: Annotated[
        str | None,
        BeforeValidator(partial(_read, parse_destination)),
        WithJsonSchema({"type": "string", "format": "uri", "maxLength": MOST_DESTINATION_CHARACTERS}),
    ] = Field(
        None,
        description="An http or https address, such as a presigned one of S3, to which the finished file is sent by "
        "PUT.",
    )

    @model_validator(mode="after")
    def _is_not_empty(self) -> Self:
        if self.end is not None and self.end <= (self.start or 0):
            raise ValueError("`end` must be later than `start`, which is 0 by default.")
        return self

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.size is not None:
            self.size.check()
        return self

    @model_validator(mode="after")
    def _is_one_format(self) -> Self:
        try:
            self.form.check()
        except InvalidRequest as error:
            raise ValueError(error.message) from error
        return self

    @property
    def form(self) -> OutputFormat:
        """The output's codec, container and quality, as far as they were given."""
        return OutputFormat(
            codec=self.codec, container=self.container, quality=encoder_quality(self.output_quality)
        )

    @property
    def size(self) -> OutputSize | None:
        """The output's size; None for the engine's."""
        return output_size(self.scale, self.max_width, self.max_height)

    def output(self, pictures: VideoProperties) -> VideoProperties:
        """The expected output of what `pictures` returned."""
        return pictures.upscaled(scale=self.engine.scale, target_fps=self.exact_rate, size=self.size)

    def check_output(self, pictures: VideoProperties, limits: MediaLimits) -> None:
        """Raises LimitExceeded if the output would be over a limit, InvalidRequest if the codec has no such frames."""
        output = self.output(pictures)
        self.form.check_size(output.width, output.height)
        check_output(
            pictures,
            scale=self.engine.scale,
            target_fps=self.exact_rate,
            limits=limits,
            size=self.size,
        )

    @property
    def part(self) -> TimeRange | None:
        """The part of the file to render; None for all of it."""
        return time_range(self.start, self.end)

    def source(self, video: VideoProperties, *, begins_at: Fraction) -> VideoProperties:
        """What is rendered of a video whose first frame is shown at `begins_at` on its file's clock.

        Raises InvalidRequest if there is nothing.
        """
        return part_of_video(video, self.part, begins_at=begins_at)

    def pictures(self, video: VideoProperties, *, begins_at: Fraction) -> VideoProperties:
        """What is upscaled of it: frames, fields, or a film's frames. Raises InvalidRequest if there is nothing."""
        return part_of_video(video.deinterlaced(self.deinterlace), self.part, begins_at=begins_at)

    @property
    def exact_rate(self) -> Fraction | None:
        """Frames per second of the output; None for the input's own rate."""
        return None if self.target_fps is None else self.target_fps.exact
