"""What all bodies have in common."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

# Whole rates go out as 25, others as 29.97002997002997.
Number = Annotated[int | float, WithJsonSchema({"type": "number"})]
# As 2023-04-01T12:34:56.789Z.
Timestamp = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
Url = Annotated[str, Field(json_schema_extra={"format": "uri"})]


class Body(BaseModel):
    """Properties are camelCase on the wire; those that are None are left out by the routes."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


def with_example(example: dict[str, Any]) -> ConfigDict:
    """The configuration of a body that shows one of its kind."""
    return ConfigDict(**{**Body.model_config, "json_schema_extra": {"examples": [example]}})
