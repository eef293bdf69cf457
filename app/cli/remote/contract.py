"""Answers of a server, held against the API's description."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import httpx

# An answer with so many is not the API's.
MOST_FAULTS = 3


@dataclass
class ContractSession:
    """Requests with a key; in what an answer is not as the description has it is kept in `differences`."""

    http: httpx.Client
    key: str
    differences: list[str] = field(default_factory=list)
    headers: httpx.Headers = field(default_factory=httpx.Headers)
    """Of the latest answer."""

    def ask(
        self,
        method: str,
        path: str,
        status: int = 200,
        *,
        route: str | None = None,
        key: str | None = None,
        **content: Any,
    ) -> Any:
        """The answer's JSON, checked by the description of `route` (by default the path); None if it has another
        status or is no JSON."""
        asked = f"{method} {path}"
        headers = {"Authorization": f"Bearer {self.key if key is None else key}"} | content.pop("headers", {})
        if key == "":
            del headers["Authorization"]
        response = self.http.request(method, path, headers=headers, **content)
        self.headers = response.headers
        if response.status_code != status:
            self.differ(f"{asked} answers {response.status_code} rather than {status}{_told(response)}")
            return None
        described = _described_answer(method, route or path, status)
        for fault in _header_faults(response.headers, described.get("headers", {})):
            self.differ(f"{asked}: {fault}")
        if method == "HEAD" or status == 204:
            return response
        try:
            body = response.json()
        except (ValueError, RecursionError):
            self.differ(f"{asked} answers {status} with something other than JSON.")
            return None
        for fault in _faults(body, described["content"]["application/json"]["schema"]):
            self.differ(f"{asked}: {fault}")
        return body

    def is_refused(self) -> bool:
        """Whether the server takes this key for nobody's. Raises httpx.HTTPError without an answer."""
        answer = self.http.get("/v1/engines", headers={"Authorization": f"Bearer {self.key}"})
        return answer.status_code in (401, 403)

    def differ(self, sentence: str) -> None:
        self.differences.append(sentence)

    def expect(self, what: str, found: Any, expected: Any) -> None:
        if found != expected:
            self.differ(f"{what} is {json.dumps(found)} rather than {json.dumps(expected)}.")


def _described_answer(method: str, route: str, status: int) -> dict[str, Any]:
    """Where there is no route, or the answer is in no description: what every answer has."""
    answers = described_api()["paths"].get(route, {}).get(method.lower(), {}).get("responses", {})
    answer: dict[str, Any] = _resolved(answers.get(str(status), {"headers": EVERY_ANSWERS_HEADERS}))
    return answer | {"content": {"application/json": {"schema": ERRORS}}} if status >= 400 else answer


def _header_faults(headers: httpx.Headers, described: dict[str, Any]) -> Iterator[str]:
    for name, described_header in described.items():
        header = _resolved(described_header)
        if name in headers:
            yield from (f"the header {name}: {fault}" for fault in _faults(headers[name], header["schema"]))
        elif header.get("required"):
            yield f"the header {name} is missing."
    media_type = headers.get("Content-Type", "none").partition(";")[0]
    if "Content-Type" in headers and media_type != "application/json":
        yield f"its type is {media_type} rather than application/json."


def _resolved(described: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in described:
        return described
    kind, name = described["$ref"].split("/")[-2:]
    found: dict[str, Any] = described_api()["components"][kind][name]
    return found


def _faults(value: Any, schema: dict[str, Any]) -> Iterator[str]:
    from jsonschema import Draft202012Validator

    validator = Draft202012Validator({**schema, "components": described_api()["components"]})
    for count, error in enumerate(validator.iter_errors(value)):
        if count == MOST_FAULTS:
            yield "and so on."
            return
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
        yield f"{where.lstrip('.') or 'the answer'}: {error.message[:200]}"
    if nulls := list(_nulls(value)):
        yield f"what is absent is null rather than left out: {', '.join(nulls[:5])}"


@cache
def described_api() -> dict[str, Any]:
    """The API's description, as this version has it."""
    from app.cli.reporting import load_settings
    from app.http.openapi import openapi_document
    from app.main import create_app

    return openapi_document(create_app(load_settings(None)))


EVERY_ANSWERS_HEADERS = {"X-Request-ID": {"$ref": "#/components/headers/X-Request-ID"}}
# Every error has this shape, and nothing else beside it.
ERRORS: dict[str, Any] = {
    "type": "object",
    "required": ["errors"],
    "additionalProperties": False,
    "properties": {
        "errors": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["message"],
                "additionalProperties": False,
                "properties": {"message": {"type": "string", "minLength": 1}},
            },
        }
    },
}


def _told(response: httpx.Response) -> str:
    """What an error says, after a colon; the end of the sentence where it says nothing."""
    try:
        return f": {' '.join(str(error['message'])[:200] for error in response.json()['errors'])}"
    except (ValueError, KeyError, TypeError, RecursionError):
        return "."


def _nulls(value: Any, name: str = "") -> Iterator[str]:
    if value is None:
        yield name
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _nulls(inner, f"{name}.{key}".lstrip("."))
    elif isinstance(value, list):
        for inner in value:
            yield from _nulls(inner, f"{name}[]")
