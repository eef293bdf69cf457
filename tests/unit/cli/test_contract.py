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
        (200, "<html>", 200, ["something other than JSON"]),
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
        return httpx.Response(
            status, **({"text": content} if isinstance(content, str) else {"json": content})
        )

    with httpx.Client(base_url="http://test", transport=httpx.MockTransport(answer)) as http:
        session = ContractSession(http, "key")
        session.ask("GET", "/v1/engines", asked)
    assert len(session.differences) == len(told)
    for part in told:
        assert any(part in sentence for sentence in session.differences)
