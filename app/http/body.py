"""The base of all JSON bodies."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, ErrorDetails, InitErrorDetails, PydanticCustomError
from starlette.requests import Request

from app.http.fields import (
    MOST_TOLD,
    UNKNOWN_NAME,
    advice_on,
    ignored_names,
    is_empty,
    is_empty_text,
    nearest_name,
)
from app.platform.json_values import shown

# They accept the values of rows and sums: a Fraction or a Decimal, and a datetime.
Number = Annotated[int | float, BeforeValidator(shown), WithJsonSchema({"type": "number"})]
Timestamp = Annotated[str, BeforeValidator(shown), Field(json_schema_extra={"format": "date-time"})]
Url = Annotated[str, Field(json_schema_extra={"format": "uri"})]


def leave_out_nulls(schema: Any) -> None:
    """Change a JSON schema in which None is a default: a property that may be left out is never null."""
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

    `model_validate` accepts a row, or any object with the properties as attributes.
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


class RequestBody(BaseModel):
    """The JSON body of a request.

    Empty fields count as absent, and so does null unless it `lifts` a value. Unknown names are refused if the
    configuration forbids extra fields, otherwise kept for `warnings`.
    """

    null_lifts: ClassVar[bool] = False
    _unknown: Sequence[str] = PrivateAttr(())

    @model_validator(mode="wrap")
    @classmethod
    def _read(cls, sent: Any, read: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(sent, dict):
            return read(sent)
        known, is_absent = cls.model_fields, is_empty_text if cls.null_lifts else is_empty
        given = {name: value for name, value in sent.items() if not is_absent(value)}
        unknown = [name for name in given if name not in known]
        told = unknown[:MOST_TOLD]
        forbids = cls.model_config.get("extra") == "forbid"
        faults: list[InitErrorDetails] = []
        try:
            body = read({name: given[name] for name in known if name in given})
        except ValidationError as error:
            faults = [_fault(fault) for fault in error.errors(include_url=False)]
        if forbids:
            faults += [_unknown_fault(name, known) for name in told]
        elif faults:
            faults += [_unknown_fault(name, known) for name in told if nearest_name(name, known)]
        if faults:
            raise ValidationError.from_exception_data(cls.__name__, faults)
        body._unknown = unknown
        return body

    def warnings(self, request: Request) -> list[str]:
        """Warnings about unknown names. Raises InvalidRequest if the application refuses them."""
        return ignored_names(request, self._unknown, type(self).model_fields)


def only(example: dict[str, Any]) -> ConfigDict:
    """The configuration of a body with an example that forbids other fields."""
    return ConfigDict(extra="forbid", json_schema_extra={"examples": [example]})


def _fault(fault: ErrorDetails) -> InitErrorDetails:
    type_ = fault["type"]
    context = fault.get("ctx", {})
    return InitErrorDetails(
        type=PydanticCustomError(UNKNOWN_NAME, "unknown", context) if type_ == UNKNOWN_NAME else type_,
        loc=fault["loc"],
        input=fault["input"],
        ctx=context,
    )


def _unknown_fault(name: str, known: Iterable[str]) -> InitErrorDetails:
    error = PydanticCustomError(UNKNOWN_NAME, "unknown", {"advice": advice_on(name, known)})
    return InitErrorDetails(type=error, loc=(name,), input=None)


def with_example(example: dict[str, Any]) -> ConfigDict:
    """The configuration of a body with an example."""
    return ConfigDict(**{**Body.model_config, "json_schema_extra": {"examples": [example]}})
