"""The limits that an administrator sets for a user or a key, as stored in rows."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.platform.rate_rules import parse_rule

RateRule = Annotated[str, Field(max_length=200), AfterValidator(lambda rule: parse_rule(rule) and rule)]


class Limits(BaseModel):
    """The limits that an administrator set for a user or a key. An absent value sets no limit."""

    model_config = ConfigDict(frozen=True, json_schema_extra={"examples": [{"requests": "100/minute"}]})

    requests: RateRule | None = Field(
        None, description="Requests in a period, as `100/minute` or `10/second;1000/hour`."
    )
    max_upload_bytes: int | None = Field(None, strict=True, ge=1, description="Largest upload.")
    max_input_pixels: int | None = Field(
        None, strict=True, ge=1, description="Maximum number of pixels in one input frame."
    )
    max_duration_seconds: int | None = Field(None, strict=True, ge=1, description="Longest input.")
    max_output_pixels: int | None = Field(
        None, strict=True, ge=1, description="Maximum number of pixels in one output frame."
    )
    max_output_frames: int | None = Field(
        None, strict=True, ge=1, description="Maximum number of frames in one output."
    )
    max_queued_renders: int | None = Field(
        None, strict=True, ge=0, description="Maximum number of queued renders."
    )
    max_storage_bytes: int | None = Field(
        None, strict=True, ge=0, description="Maximum bytes of stored uploads and results."
    )
    max_cost_per_month: float | None = Field(
        None,
        ge=0,
        strict=True,
        allow_inf_nan=False,
        description="Maximum gigapixels times multiplier in a month (UTC).",
    )

    @classmethod
    def stored(cls, column: Mapping[str, Any] | None) -> Self:
        """The limits in a column of a user's or a key's row."""
        return cls.model_validate(column) if column else cls()


def changed_limits(stored: Mapping[str, Any] | None, given: Limits) -> dict[str, Any] | None:
    """The new value of a row's limits column: each field set in `given`, also to None, replaces the stored one."""
    changed = Limits.stored(stored).model_copy(update=given.model_dump(exclude_unset=True))
    return changed.model_dump(exclude_none=True) or None
