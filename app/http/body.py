"""What all bodies have in common."""

from datetime import datetime
from fractions import Fraction
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

from app.platform import json_values


def _shown(value: Any) -> Any:
    """What rows hold as JSON shows it."""
    if isinstance(value, Fraction):
        return json_values.number(value)
    return json_values.timestamp(value) if isinstance(value, datetime) else value


# Both take what rows hold, a Fraction and a datetime.
Number = Annotated[int | float, BeforeValidator(_shown), WithJsonSchema({"type": "number"})]
Timestamp = Annotated[str, BeforeValidator(_shown), Field(json_schema_extra={"format": "date-time"})]
Url = Annotated[str, Field(json_schema_extra={"format": "uri"})]


class Body(BaseModel):
    """Properties are camelCase on the wire; those that are None are left out by the routes.

    `model_validate` takes a row, or any object that has the properties as attributes.
    """

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, from_attributes=True, frozen=True
    )


def with_example(example: dict[str, Any]) -> ConfigDict:
    """The configuration of a body that shows one of its kind."""
    return ConfigDict(**{**Body.model_config, "json_schema_extra": {"examples": [example]}})
