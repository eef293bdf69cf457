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
    """Requests with a key; whatever an answer has that the description does not is kept in `differences`."""

    http: httpx.Client
    key: str
    differences: list[str] = field(default_factory=list)

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
        if response.status_code != status:
            self.differ(f"{asked} answers {response.status_code} rather than {status}.")
            return None
        if method == "HEAD" or status == 204:
            return response
        try:
            body = response.json()
        except ValueError:
            self.differ(f"{asked} answers {status} with something other than JSON.")
            return None
        for fault in self._faults(body, method, route or path, status):
            self.differ(f"{asked}: {fault}")
        return body

    def differ(self, sentence: str) -> None:
        self.differences.append(sentence)

    def expect(self, what: str, found: Any, expected: Any) -> None:
        if found != expected:
            self.differ(f"{what} is {json.dumps(found)} rather than {json.dumps(expected)}.")

    def _faults(self, body: Any, method: str, route: str, status: int) -> Iterator[str]:
        if status >= 400:
            schema: dict[str, Any] = ERRORS
        else:
            answers = described_api()["paths"][route][method.lower()]["responses"]
            schema = answers[str(status)]["content"]["application/json"]["schema"]
        from jsonschema import Draft202012Validator

        validator = Draft202012Validator({**schema, "components": described_api()["components"]})
        for count, error in enumerate(validator.iter_errors(body)):
            if count == MOST_FAULTS:
                yield "and so on."
                return
            where = "".join(
                f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path
            )
            yield f"{where.lstrip('.') or 'the answer'}: {error.message[:200]}"
        if nulls := list(_nulls(body)):
            yield f"what is absent is null rather than left out: {', '.join(nulls[:5])}"


@cache
def described_api() -> dict[str, Any]:
    """The API's description, as this version has it."""
    from app.cli.reporting import load_settings
    from app.http.openapi import openapi_document
    from app.main import create_app

    return openapi_document(create_app(load_settings(None)))


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


def _nulls(value: Any, name: str = "") -> Iterator[str]:
    if value is None:
        yield name
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _nulls(inner, f"{name}.{key}".lstrip("."))
    elif isinstance(value, list):
        for inner in value:
            yield from _nulls(inner, f"{name}[]")
