"""What the API answers. Properties that this version does not know are in `raw`, the answer as it came."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import date, datetime
from typing import Any, Literal, NotRequired, Self, TypedDict

from regen_client.errors import RegenError


class Crop(TypedDict):
    """A part of the frame as displayed, in its pixels, from its top left corner."""

    x: int
    y: int
    width: int
    height: int


class SuggestedEngine(TypedDict):
    """A guess from a few frames, with the reason in sentences; never chosen by itself."""

    engine: str
    reason: str


class Destination(TypedDict):
    """Where a result is sent: the address without its query, and why the last attempt failed."""

    url: str
    status: Literal["pending", "delivering", "delivered", "failed"]
    attempts: int
    message: NotRequired[str]
    deliveredAt: NotRequired[str]


class VmafRange(TypedDict):
    """0 to 100: of the segment that has the least, and of all by their frames."""

    min: float
    mean: float


class CrfRange(TypedDict):
    """On the scale of the output's encoder; higher is smaller and worse."""

    min: float
    max: float


class EncodedQuality(TypedDict):
    """What the encoder was set to for the VMAF that `output_quality` asked for. `model` is libvmaf's."""

    target: float
    vmaf: VmafRange
    crf: CrfRange
    model: str


@dataclass(frozen=True, kw_only=True)
class Answer:
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> Self:
        """Raises RegenError if a property that is always there is missing or malformed."""
        if not isinstance(row, Mapping):
            raise RegenError(f"The server's answer has a malformed {cls.__name__.lower()}: {row!r:.100}.")
        values: dict[str, Any] = {"raw": row}
        for known in fields(cls):
            name = _spelling(known.name)
            if known.name == "raw" or row.get(name) is None:
                continue
            try:
                values[known.name] = _READERS.get(known.name, _as_it_is)(row[name])
            except (ValueError, TypeError, AttributeError) as error:
                raise RegenError(f"The server's answer has a malformed `{name}`: {row[name]!r}.") from error
        required = [known.name for known in fields(cls) if known.default is MISSING]
        if missing := [_spelling(name) for name in required if name not in values]:
            raise RegenError(f"The server's answer lacks {', '.join(missing)}.")
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class Video(Answer):
    """Size in pixels as displayed, frames per second, duration in seconds, number of frames."""

    width: int
    height: int
    frame_rate: float
    duration_seconds: float
    frames: int


@dataclass(frozen=True, kw_only=True)
class File(Answer):
    id: str
    name: str
    size_bytes: int
    width: int | None = None
    height: int | None = None
    frame_rate: float | None = None
    duration_seconds: float | None = None
    created_at: datetime | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FilterEffect(Answer):
    """What `stabilise` did to the pictures: warping errors before it and after it, the share of sharpness lost, and the
    PSNR to the unfiltered pictures in dB; `pairs` of frames were compared."""

    psnr_to_unfiltered: float
    pairs: int
    warping_error_before: float | None = None
    warping_error_after: float | None = None
    sharpness_lost: float | None = None


@dataclass(frozen=True, kw_only=True)
class Quality(Answer):
    """How close a render is to its input: `psnr` and `temporal_stability` in dB, `ssim` up to 1, `vmaf` from 0 to 100;
    `frames` were compared."""

    psnr: float
    ssim: float
    frames: int
    vmaf: float | None = None
    temporal_stability: float | None = None
    warping_error: float | None = None
    warping_error_input: float | None = None
    stabilise_effect: FilterEffect | None = None


@dataclass(frozen=True, kw_only=True)
class PictureFacts(Answer):
    """How the picture is made, where that is not as by default."""

    scale: int | None = None
    max_width: int | None = None
    max_height: int | None = None
    strength: float | None = None
    grain: float | None = None
    stabilise: int | None = None
    deinterlace: str | None = None


@dataclass(frozen=True, kw_only=True)
class OptionFacts(PictureFacts):
    """What was asked of the output, where that is not as by default. `target_fps_exact` is a fraction such as
    `30000/1001`; `start` and `end` are in seconds."""

    target_fps: float | None = None
    target_fps_exact: str | None = None
    start: float | None = None
    end: float | None = None
    codec: str | None = None
    container: str | None = None
    output_quality: str | None = None


@dataclass(frozen=True, kw_only=True)
class Render(OptionFacts):
    """`status` is `queued`, `pending`, `processing`, `completed` or `failed`; `progress` is from 0 to 1. URLs are
    signed for a day."""

    id: str
    user_id: str
    status: str
    created_at: datetime
    queue_position: int | None = None
    input_file_url: str | None = None
    output_file_url: str | None = None
    thumbnail_url: str | None = None
    stream_url: str | None = None
    completed_at: datetime | None = None
    engine: str | None = None
    retime: str | None = None
    cancel_after: int | None = None
    priority: int | None = None
    webhook_url: str | None = None
    file_id: str | None = None
    file_name: str | None = None
    cost: float | None = None
    progress: float = 0.0
    eta_seconds: float | None = None
    error: str | None = None
    request_id: str | None = None
    warnings: tuple[str, ...] = ()
    metadata: Mapping[str, str] | None = field(default=None, hash=False)
    destination: Destination | None = field(default=None, hash=False)
    retry_of: str | None = None
    input: Video | None = None
    output: Video | None = None
    output_size_bytes: int | None = None
    encoded_quality: EncodedQuality | None = field(default=None, hash=False)
    quality: Quality | None = None
    files_removed_at: datetime | None = None

    @property
    def ended(self) -> bool:
        return self.status in ("completed", "failed")


@dataclass(frozen=True, kw_only=True)
class RenderEvent(Answer):
    """What an event tells of a render under way; None: it does not apply."""

    id: str
    status: str
    progress: float = 0.0
    frames_done: int | None = None
    frames: int | None = None
    eta_seconds: float | None = None
    queue_position: int | None = None


@dataclass(frozen=True, kw_only=True)
class Estimate(OptionFacts):
    """`refusals` has the sentences that would refuse the render if it is not `accepted`; `measured_on` the devices
    whose speed the time is reckoned with."""

    engine: str
    accepted: bool
    refusals: tuple[str, ...] = ()
    input: Video | None = None
    output: Video | None = None
    cost: float | None = None
    expected_seconds: float | None = None
    wait_seconds: float | None = None
    suggested_engine: SuggestedEngine | None = field(default=None, hash=False)
    measured_on: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Preview(PictureFacts):
    """One frame before and after: images at signed URLs, when `status` is `completed`."""

    id: str
    status: str
    file_id: str
    engine: str | None = None
    at_seconds: float = 0.0
    created_at: datetime | None = None
    expires_at: datetime | None = None
    crop: Crop | None = field(default=None, hash=False)
    whole_frame: bool | None = None
    before_url: str | None = None
    after_url: str | None = None
    error: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def ended(self) -> bool:
        return self.status in ("completed", "failed")


@dataclass(frozen=True, kw_only=True)
class Engine(Answer):
    id: str
    scale: int
    cost_multiplier: float
    description: str
    default: bool = False


@dataclass(frozen=True, kw_only=True)
class UsedOnDay(Answer):
    """Renders that were completed on a day in UTC; gigapixels of their outputs."""

    day: date
    engine: str
    renders: int
    gigapixels: float
    cost: float


@dataclass(frozen=True, kw_only=True)
class UsageTotals(Answer):
    """`renders`, `gigapixels` and `cost` of the period; the present month's cost, and what is there now."""

    renders: int
    gigapixels: float
    cost: float
    month_cost: float
    storage_bytes: int
    queued_renders: int
    running_renders: int


@dataclass(frozen=True, kw_only=True)
class Limits(Answer):
    """What the user may do; None: without a limit. `requests` is such as `100/minute`."""

    requests: str | None = None
    max_upload_bytes: int | None = None
    max_input_pixels: int | None = None
    max_duration_seconds: int | None = None
    max_output_pixels: int | None = None
    max_output_frames: int | None = None
    max_queued_renders: int | None = None
    max_storage_bytes: int | None = None
    max_cost_per_month: float | None = None
    max_running_segments: int | None = None
    max_running_renders: int | None = None


@dataclass(frozen=True, kw_only=True)
class Usage(Answer):
    """From one day to another, both in UTC and included."""

    from_: date
    to: date
    days: tuple[UsedOnDay, ...]
    totals: UsageTotals
    limits: Limits


@dataclass(frozen=True, kw_only=True)
class Progress:
    """`done` of `total`: bytes of an upload or a download, frames of a render. `total` is 0 while it is unknown."""

    stage: Literal["upload", "render", "download"]
    done: int
    total: int
    status: str | None = None
    eta_seconds: float | None = None


def _spelling(name: str) -> str:
    """The API's spelling of a property: `output_file_url` is `outputFileURL`."""
    if name in _SPELLINGS:
        return _SPELLINGS[name]
    first, *rest = name.split("_")
    return first + "".join("URL" if word == "url" else word.capitalize() for word in rest)


def _as_it_is(value: Any) -> Any:
    return value


_SPELLINGS = {"webhook_url": "webhookUrl"}
_READERS: dict[str, Callable[[Any], Any]] = {
    "created_at": datetime.fromisoformat,
    "completed_at": datetime.fromisoformat,
    "expires_at": datetime.fromisoformat,
    "files_removed_at": datetime.fromisoformat,
    "from_": date.fromisoformat,
    "to": date.fromisoformat,
    "day": date.fromisoformat,
    "days": lambda rows: tuple(UsedOnDay.read(row) for row in rows),
    "totals": UsageTotals.read,
    "limits": Limits.read,
    "quality": Quality.read,
    "stabilise_effect": FilterEffect.read,
    "input": Video.read,
    "output": Video.read,
    "warnings": tuple,
    "refusals": tuple,
    "measured_on": tuple,
}
