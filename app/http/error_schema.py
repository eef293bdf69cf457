"""The one shape of every error."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class ErrorMessage(BaseModel):
    message: str = Field(description="A sentence that explains the fault.")


class ErrorsBody(BaseModel):
    """Every error has exactly this shape."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"errors": [{"message": "File not found"}]}]})

    errors: list[ErrorMessage] = Field(min_length=1, description="One for each fault.")


# Referenced by its place in the description of the API.
ERRORS_SCHEMA = {"$ref": "#/components/schemas/ErrorsBody"}


def error_schemas() -> dict[str, Any]:
    """The schemas of an error's body, by name."""
    schema = ErrorsBody.model_json_schema(ref_template="#/components/schemas/{model}")
    return {**schema.pop("$defs"), "ErrorsBody": schema}
