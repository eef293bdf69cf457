"""What all bodies have in common."""

from datetime import UTC, datetime
from fractions import Fraction
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel


def number(value: Any) -> Any:
    """A Fraction as JSON shows it: 25 as 25, 30000/1001 as 29.97002997002997. Other values unchanged."""
    if isinstance(value, Fraction):
        return value.numerator if value.denominator == 1 else float(value)
    return value


def timestamp(moment: Any) -> Any:
    """A datetime as ISO 8601 in UTC with milliseconds: 2023-04-01T12:34:56.789Z. Other values unchanged."""
    if isinstance(moment, datetime):
        text = moment.astimezone(UTC).isoformat(timespec="milliseconds")
        return text.removesuffix("+00:00") + "Z"
    return moment


# Both are given as what rows hold, a Fraction and a datetime.
Number = Annotated[int | float, BeforeValidator(number), WithJsonSchema({"type": "number"})]
Timestamp = Annotated[str, BeforeValidator(timestamp), Field(json_schema_extra={"format": "date-time"})]
Url = Annotated[str, Field(json_schema_extra={"format": "uri"})]


class Body(BaseModel):
    """Properties are camelCase on the wire; those that are None are left out by the routes."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, from_attributes=True, frozen=True
    )


def with_example(example: dict[str, Any]) -> ConfigDict:
    """The configuration of a body that shows one of its kind."""
    return ConfigDict(**{**Body.model_config, "json_schema_extra": {"examples": [example]}})
