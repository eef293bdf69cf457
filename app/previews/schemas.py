"""Previews."""

from datetime import timedelta
from pathlib import PurePath
from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator

from app.files.moments import LONGEST_SECONDS
from app.http.body import Body, Number, RequestBody, Timestamp, Url, with_example
from app.http.resources import Resources
from app.platform.file_names import output_name
from app.platform.media.output_size import MOST_SCALE, MOST_SIDE, OutputSize
from app.platform.media.picture_options import MOST_STABILISE, Deinterlace
from app.previews import tables
from app.previews.service import KEPT_SECONDS, crop_of
from app.renders.statuses import RenderStatus
from models.catalog import DEFAULT_ENGINE, ENGINES, SCALE

LONGEST_ID = 64
# More than any accepted frame has.
MOST_PIXELS_A_SIDE = 65_535

Offset = Annotated[int, Field(ge=0, le=MOST_PIXELS_A_SIDE, strict=True)]
Bound = Annotated[int, Field(ge=2, le=MOST_SIDE, strict=True)]
Length = Annotated[int, Field(ge=1, le=MOST_PIXELS_A_SIDE, strict=True)]

_EXAMPLE = {
    "id": "3hQ0cJm5VtYxN8aE",
    "status": "completed",
    "createdAt": "2026-11-22T07:33:38.047Z",
    "expiresAt": "2026-11-23T07:33:38.047Z",
    "fileId": "QkjXasuzs2TKugHH",
    "engine": "regen-4x-lite",
    "atSeconds": 1.5,
    "crop": {"x": 40, "y": 20, "width": 160, "height": 90},
    "wholeFrame": False,
    "beforeURL": "https://regen.example.com/storage/previews/3hQ0cJm5VtYxN8aE/before-1.png?expires=...",
    "afterURL": "https://regen.example.com/storage/previews/3hQ0cJm5VtYxN8aE/after-1.png?expires=...",
}


class Crop(Body):
    """A part of the frame as displayed, in its pixels, from its top left corner."""

    x: Offset
    y: Offset
    width: Length
    height: Length


class PreviewRequest(RequestBody):
    """Either `crop`, or `crop_width` and `crop_height`, or none of them: then the server chooses."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"file_id": "QkjXasuzs2TKugHH", "at_seconds": 1.5, "crop_width": 160, "crop_height": 90}
            ]
        }
    )

    file_id: str = Field(min_length=1, max_length=LONGEST_ID, description="A file of yours.")
    at_seconds: float = Field(
        0.0,
        ge=0,
        le=LONGEST_SECONDS,
        strict=True,
        allow_inf_nan=False,
        description="The moment, counted from the video's first frame. The frame is the last one that begins by then.",
    )
    engine: str = Field(
        DEFAULT_ENGINE, description="One of `GET /v1/engines`.", json_schema_extra={"examples": list(ENGINES)}
    )
    crop: Crop | None = Field(None, description="The part of the frame to show.")
    crop_width: Length | None = Field(None, description="Of a part around the centre of the frame.")
    crop_height: Length | None = Field(None, description="Needed with `crop_width`.")
    scale: int | None = Field(
        None,
        ge=1,
        le=MOST_SCALE,
        strict=True,
        description="As for a render: how many times as wide and high.",
    )
    max_width: Bound | None = Field(
        None, description="As for a render: the most pixels in a row of the whole frame's output."
    )
    max_height: Bound | None = Field(
        None, description="As for a render: the most rows of the whole frame's output."
    )
    strength: float = Field(1.0, ge=0, le=1, strict=True, allow_inf_nan=False, description="As for a render.")
    grain: float = Field(0.0, ge=0, le=1, strict=True, allow_inf_nan=False, description="As for a render.")
    stabilise: int = Field(
        0,
        ge=0,
        le=MOST_STABILISE,
        strict=True,
        description="As for a render: the frames around the one that is shown are upscaled too.",
    )
    deinterlace: Deinterlace = Field(Deinterlace.AUTO, description="As for a render.")

    @model_validator(mode="after")
    def _has_one_size(self) -> Self:
        self.size.check()
        return self

    @property
    def size(self) -> OutputSize:
        """The size of the whole frame's output."""
        return OutputSize(scale=self.scale, max_width=self.max_width, max_height=self.max_height)


class Preview(Body):
    id: str
    status: str = Field(
        description="`queued`, `processing`, `completed` or `failed`.",
        json_schema_extra={"enum": ["queued", "processing", "completed", "failed"]},
    )
    created_at: Timestamp
    expires_at: Timestamp = Field(description="When the preview is removed, with its images.")
    file_id: str
    engine: str
    at_seconds: Number
    crop: Crop | None = Field(
        None,
        description="The part of the frame that is shown; once completed, the actual one. Left out for the whole "
        "frame, and while the server has not chosen.",
    )
    whole_frame: bool | None = Field(
        None, description="Whether the whole frame is shown; left out while the server has not chosen."
    )
    scale: int | None = Field(None, description="If it was given.")
    max_width: int | None = Field(None, description="If it was given.")
    max_height: int | None = Field(None, description="If it was given.")
    strength: Number | None = Field(None, description="If it is not 1.")
    grain: Number | None = Field(None, description="If it is not 0.")
    stabilise: int | None = Field(None, description="If it is not 0.")
    deinterlace: str | None = Field(None, description="If it is not `auto`.")
    before_url: Url | None = Field(
        None,
        alias="beforeURL",
        description="Signed URL of the unchanged frame: PNG, large ones JPEG. When completed.",
    )
    after_url: Url | None = Field(
        None,
        alias="afterURL",
        description="Signed URL of the same, four (or `scale`) times as wide and high, or as `max_width` and "
        "`max_height` allow for the whole frame. When completed.",
    )
    error: str | None = Field(None, description="A sentence; when failed.")
    warnings: list[str] | None = Field(None, description="When there are any.")

    @classmethod
    def of(cls, preview: tables.Preview, *, resources: Resources, base_url: str) -> Self:
        """The preview with URLs signed now, which expire soon after it."""
        completed = preview.status is RenderStatus.COMPLETED
        crop = crop_of(preview)
        before_url, after_url = (
            resources.signed_url(
                key if completed else None,
                base_url=base_url,
                file_name=output_name(preview.file.name, scale=factor, suffix=PurePath(key or "").suffix),
                longest_seconds=KEPT_SECONDS,
            )
            for key, factor in ((preview.before_key, 1), (preview.after_key, _scale_of(preview)))
        )
        return cls(
            id=preview.id,
            status=preview.status,
            created_at=preview.created_at,
            expires_at=preview.created_at + timedelta(seconds=KEPT_SECONDS),
            file_id=preview.file_id,
            engine=preview.engine,
            at_seconds=preview.at_seconds,
            crop=None if crop is None else Crop.model_validate(crop),
            whole_frame=crop is None if completed else None if crop is None else False,
            scale=preview.scale,
            max_width=preview.max_width,
            max_height=preview.max_height,
            strength=None if preview.strength == 1 else preview.strength,
            grain=preview.grain or None,
            stabilise=preview.stabilise or None,
            deinterlace=None if preview.deinterlace == Deinterlace.AUTO else preview.deinterlace,
            before_url=before_url,
            after_url=after_url,
            error=preview.error if preview.status is RenderStatus.FAILED else None,
            warnings=preview.warnings or None,
        )


def _scale_of(preview: tables.Preview) -> int | str:
    """The size of the picture after upscaling, as its file name says it."""
    bounds = [str(bound) for bound in (preview.max_width, preview.max_height) if bound is not None]
    return f"within-{'x'.join(bounds)}" if bounds else preview.scale or SCALE


class PreviewBody(Body):
    model_config = with_example({"preview": _EXAMPLE})

    preview: Preview


class PreviewsBody(Body):
    """A page, the newest first."""

    model_config = with_example({"previews": [_EXAMPLE]})

    previews: list[Preview]
    next_cursor: str | None = Field(None, description="For the next page; left out on the last.")
