"""What `regen verify-api` says of answers that are not as the API's description has them."""

import json
from pathlib import Path

import httpx
import pytest

from app.cli.remote.contract import ContractSession

DOCUMENT = json.loads((Path(__file__).parents[3] / "docs" / "openapi.json").read_text())
ENGINE = {"id": "a", "scale": 4, "costMultiplier": 1, "description": "An engine.", "default": True}


@pytest.mark.parametrize(
    ("status", "content", "asked", "told"),
    [
        (200, {"engines": [ENGINE]}, 200, []),
        (200, {"engines": [ENGINE | {"new": 1}], "more": 2}, 200, []),
        (
            200,
            {"engines": [ENGINE | {"scale": "4"}]},
            200,
            ["engines[0].scale: '4' is not of type 'integer'"],
        ),
        (200, {"Engines": []}, 200, ["'engines' is a required property"]),
        (
            200,
            {"engines": [ENGINE | {"licence": None}]},
            200,
            ["null rather than left out: engines[].licence"],
        ),
        (201, {"engines": []}, 200, ["answers 201 rather than 200"]),
        (200, "<html>", 200, ["something other than JSON", "text/plain rather"]),
        (200, 100_000 * "[", 200, ["something other than JSON", "text/plain rather"]),
        (500, 100_000 * "[", 200, ["answers 500 rather than 200."]),
        (404, {"errors": [{"message": "No."}]}, 404, []),
        (404, {"detail": "No."}, 404, ["Additional properties", "'errors' is a required property"]),
        (404, {"errors": [{"message": "No.", "code": 1}]}, 404, ["errors[0]: Additional properties"]),
        (404, {"errors": []}, 404, ["errors: [] should be non-empty"]),
    ],
)
def test_differences(monkeypatch, status, content, asked, told):
    monkeypatch.setattr("app.cli.remote.contract.described_api", lambda: DOCUMENT)

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["Authorization"] == "Bearer key"
        shaped = {"text": content} if isinstance(content, str) else {"json": content}
        return httpx.Response(status, **shaped, headers={"X-Request-ID": "a-1"})

    with httpx.Client(base_url="http://test", transport=httpx.MockTransport(answer)) as http:
        session = ContractSession(http, "key")
        session.ask("GET", "/v1/engines", asked)
    assert len(session.differences) == len(told)
    for part in told:
        assert any(part in sentence for sentence in session.differences)


@pytest.mark.parametrize(
    ("asked", "status", "headers", "told"),
    [
        ("GET /v1/engines", 200, {"X-Request-ID": "a-1", "RateLimit": '"user";r=97;t=41'}, []),
        ("GET /v1/engines", 200, {}, ["the header X-Request-ID is missing"]),
        (
            "GET /v1/engines",
            200,
            {"X-Request-ID": "a b"},
            ["the header X-Request-ID: the answer: 'a b' does not"],
        ),
        ("GET /v1/engines", 401, {"X-Request-ID": "a"}, ["the header WWW-Authenticate is missing"]),
        ("GET /v1/engines", 401, {"X-Request-ID": "a", "WWW-Authenticate": "Bearer"}, []),
        ("GET /v1/nothing", 404, {}, ["the header X-Request-ID is missing"]),
        ("POST /v1/upscale", 200, {"X-Request-ID": "a"}, ["the header Location is missing"]),
    ],
)
def test_differences_of_headers(monkeypatch, asked, status, headers, told):
    monkeypatch.setattr("app.cli.remote.contract.described_api", lambda: DOCUMENT)
    render = {"id": "a", "userId": "b", "status": "queued", "createdAt": "2023-04-01T12:34:56.789Z"}
    right: dict[str, object] = {"engines": [ENGINE], "render": render, "errors": [{"message": "No."}]}
    content = {"errors": right["errors"]} if status >= 400 else right

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(status, json=content, headers=headers)

    with httpx.Client(base_url="http://test", transport=httpx.MockTransport(answer)) as http:
        session = ContractSession(http, "key")
        method, path = asked.split()
        session.ask(method, path, status)
    faults = [sentence for sentence in session.differences if "the header" in sentence]
    assert len(faults) == len(told) and all(part in "".join(faults) for part in told)
