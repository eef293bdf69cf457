"""The OpenAPI description of the whole API, in addition to what every route declares."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from app.http.body import leave_out_nulls
from app.http.errors import documented, error_schemas
from app.platform.metrics import server_version
from app.renders.statuses import RenderStatus

JSON = "application/json"

DESCRIPTION = """Upscales videos four times, each way. Send one to `POST /v1/upscale`, then poll
`GET /v1/renders/{render_id}` until its `status` is `completed` or `failed`.

Authenticate with `Authorization: Bearer <API key>` or `X-API-Key: <API key>`. Every error has one shape,
`{"errors": [{"message": "..."}]}`. Every answer has an `X-Request-ID`, which is the request's own if it had one.
Properties that do not apply are left out, never null. Expect new properties and ignore those that you do not know.
Fields and query parameters of a request that are empty or null count as not given; but a `PATCH` of users and keys
lifts what is null.

HEAD is answered wherever GET is. Bodies are JSON in UTF-8 or forms, and never compressed (415).

The URLs in answers are signed and need no key. Take them as they are: they may lead to another server."""

# In the order in which readers need them.
TAGS = {
    "renders": "Upscaling of a video: request it, follow it, fetch its results.",
    "files": "Videos uploaded once, to be rendered as often as you like.",
    "uploads": "Large videos, sent in parts that may each be sent again.",
    "previews": "One frame before and after, ahead of the queue.",
    "estimates": "What a render would cost, and how long it would take.",
    "engines": "The networks there are.",
    "webhooks": "Notifications instead of polling.",
    "events": "What your receiver of notifications is sent.",
    "usage": "What was rendered, and the remaining limits.",
    "account": "The key in use.",
    "administration": "For administrators: keys with the scope `admin`.",
    "health": "For monitoring of the server. No key is needed.",
}

_HEADERS: dict[str, dict[str, Any]] = {
    "X-Request-ID": {
        "description": "The request's id: its own, or a generated one. Every line of the server's log has it.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"},
    },
    "Retry-After": {
        "description": "How many seconds to wait before the next try.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
    },
    "WWW-Authenticate": {
        "description": "How to authenticate.",
        "required": True,
        "schema": {"type": "string", "const": "Bearer"},
    },
    "RateLimit": {
        "description": "If requests are limited: how many are left (`r`), and for how many seconds (`t`).",
        "schema": {"type": "string"},
    },
    "RateLimit-Policy": {
        "description": "If requests are limited: how many (`q`) are allowed in how many seconds (`w`).",
        "schema": {"type": "string"},
    },
    "Idempotent-Replayed": {
        "description": "`true` if an earlier request with this `Idempotency-Key` made what is answered.",
        "schema": {"type": "string", "const": "true"},
    },
    "Preference-Applied": {
        "description": "Which preference was heeded.",
        "schema": {"type": "string"},
    },
    "Location": {
        "description": "The address of what was made.",
        "required": True,
        "schema": {"type": "string", "format": "uri"},
    },
}
# The answer's header for a header of the request.
_HEARD = {"Idempotency-Key": "Idempotent-Replayed", "Prefer": "Preference-Applied"}
LOCATION = {"headers": {"Location": {"$ref": "#/components/headers/Location"}}}


def operation_id(route: APIRoute) -> str:
    """The name of the route's function in camelCase, which client generators use for methods."""
    first, *rest = route.name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def openapi_document(app: FastAPI, *, server_url: str = "/") -> dict[str, Any]:
    """The description of all routes of `app`, at `server_url`."""
    # Creating these routes is slow, and nothing else needs them.
    from app.renders.webhook_description import webhooks

    document = get_openapi(
        title="Regen",
        version=server_version(),
        description=DESCRIPTION,
        license_info={"name": "MIT", "identifier": "MIT"},
        servers=[{"url": server_url}],
        tags=[{"name": name, "description": description} for name, description in TAGS.items()],
        routes=app.routes,
        webhooks=webhooks.routes,
    )
    for events in document["webhooks"].values():
        _finish_event(events["post"])
    for _method, _path, operation in operations_of(document):
        _finish_operation(operation)
    components = document["components"]
    # A faulty body is answered in the one error shape.
    for name in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(name, None)
    components["schemas"] |= error_schemas()
    components["headers"] = _HEADERS
    components["responses"] = _shared_errors(document)
    for schema in components["schemas"].values():
        for part in schema.get("properties", {}).values():
            part.pop("title", None)  # the property's name over again
    _name_constants(components["schemas"])
    _widen_numbers(document)
    return document


def operations_of(document: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path and description of every operation."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield method.upper(), path, operation


def _finish_operation(operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    responses.pop("422", None)
    if "requestBody" in operation:
        statuses = (408, 413, 415) if JSON in operation["requestBody"]["content"] else (408, 415)
        responses |= {str(status): answer for status, answer in documented(*statuses).items()}
    parameters = operation.get("parameters", [])
    asked = {parameter["name"] for parameter in parameters}
    for status, response in responses.items():
        names = ["X-Request-ID"]
        if status in ("429", "503"):
            names.append("Retry-After")
        if status == "401":
            names.append("WWW-Authenticate")
        elif "security" in operation:
            names += ["RateLimit", "RateLimit-Policy"]
        if status.startswith("2"):
            names += [header for parameter, header in _HEARD.items() if parameter in asked]
        named = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
        # A new one: routes may share theirs.
        response["headers"] = {**response.get("headers", {}), **named}
    for parameter in parameters:
        leave_out_nulls(parameter["schema"])
        parameter["schema"].pop("title", None)
        if parameter["in"] == "query":
            parameter["allowEmptyValue"] = True  # it counts as not given


def _finish_event(operation: dict[str, Any]) -> None:
    """Correct FastAPI's description: a receiver is not a route."""
    responses = operation["responses"]
    responses.pop("422", None)
    responses["2XX"] = {"description": responses.pop("200")["description"]}
    for parameter in operation["parameters"]:
        parameter["schema"].pop("title", None)


def _name_constants(schemas: Mapping[str, dict[str, Any]]) -> None:
    """Name the values of enumerations that share a value with another.

    In Go all constants of a package share one namespace. The statuses of renders, which most clients compare with, keep
    their bare names.
    """
    enumerations = {name: schema["enum"] for name, schema in schemas.items() if "enum" in schema}
    uses = Counter(value for values in enumerations.values() for value in values)
    for name, values in enumerations.items():
        if name != RenderStatus.__name__ and any(uses[value] > 1 for value in values):
            words = re.sub("(?<=[a-z])(?=[A-Z])", "_", name)
            constants = [re.sub(r"\W", "_", f"{words}_{value}").upper() for value in values]
            schemas[name]["x-enum-varnames"] = constants


def _widen_numbers(part: Any) -> None:
    """Declare numbers as wide as they may be: typed languages take 32 bits otherwise, too few for a size in bytes."""
    if isinstance(part, dict):
        if part.get("type") == "integer" and part.get("maximum", math.inf) >= 2**31:
            part["format"] = "int64"
        elif part.get("type") == "number":
            part["format"] = "double"
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        _widen_numbers(inner)


def _shared_errors(document: Mapping[str, Any]) -> dict[str, Any]:
    """Move the error answers of several operations to one place and refer to them."""
    shared: dict[str, Any] = {}
    for _method, _path, operation in operations_of(document):
        for status, response in operation["responses"].items():
            if status < "400":
                continue
            name, number = f"Error{status}", 1
            while shared.setdefault(name, response) != response:
                number += 1
                name = f"Error{status}_{number}"
            operation["responses"][status] = {"$ref": f"#/components/responses/{name}"}
    return shared
