"""What all bodies have in common."""

from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler, WithJsonSchema
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from app.platform import json_values


def _shown(value: Any) -> Any:
    """What rows hold as JSON shows it."""
    if isinstance(value, Fraction | Decimal):
        return json_values.number(value)
    return json_values.timestamp(value) if isinstance(value, datetime) else value


# They take what rows and sums hold: a Fraction or a Decimal, and a datetime.
Number = Annotated[int | float, BeforeValidator(_shown), WithJsonSchema({"type": "number"})]
Timestamp = Annotated[str, BeforeValidator(_shown), Field(json_schema_extra={"format": "date-time"})]
Url = Annotated[str, Field(json_schema_extra={"format": "uri"})]


def leave_out_nulls(schema: Any) -> None:
    """Change a JSON schema in which None is a default: what may be left out is never null."""
    if isinstance(schema, list):
        for part in schema:
            leave_out_nulls(part)
    elif isinstance(schema, dict):
        choices = schema.get("anyOf")
        if isinstance(choices, list) and {"type": "null"} in choices:
            choices.remove({"type": "null"})
            if len(choices) == 1:
                del schema["anyOf"]
                schema.update({**choices[0], **schema})
            if schema.get("default", ...) is None:
                del schema["default"]
        for key, part in schema.items():
            if key not in ("example", "examples"):
                leave_out_nulls(part)


class Body(BaseModel):
    """Properties are camelCase on the wire; those that are None are left out by the routes.

    `model_validate` takes a row, or any object that has the properties as attributes.
    """

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        described = handler(schema)
        leave_out_nulls(handler.resolve_ref_schema(described))
        return described

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, from_attributes=True, frozen=True
    )


def with_example(example: dict[str, Any]) -> ConfigDict:
    """The configuration of a body that shows one of its kind."""
    return ConfigDict(**{**Body.model_config, "json_schema_extra": {"examples": [example]}})
