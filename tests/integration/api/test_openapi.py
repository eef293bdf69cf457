"""The description of the API: whole, true in its examples, and fit for generators of clients."""

import importlib.util
import json
import re
from collections import Counter
from urllib.parse import urljoin

import httpx
import jsonschema_rs
import pytest
import structlog
from structlog.testing import LogCapture

from app.http.openapi import openapi_document, operations_of
from app.http.openapi_page import PAGE, SERVER_URL, openapi_page
from app.main import create_app
from app.webhooks.statuses import WebhookEvent
from tests.servers.process import wait_until

DOCUMENT = openapi_document(create_app())
OPERATIONS = list(operations_of(DOCUMENT))
JSON = "application/json"


def resolved(part: dict) -> dict:
    """What a reference stands for, or the part itself."""
    while "$ref" in part:
        found: dict = DOCUMENT
        for name in part["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        part = found
    return part


def bodies():
    """Every body of a request or an answer: what it belongs to, its media type and its description."""
    for _method, _path, operation in OPERATIONS:
        name = operation["operationId"]
        for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
            yield f"{name} request", media_type, content
        for status, response in operation["responses"].items():
            for media_type, content in resolved(response).get("content", {}).items():
                yield f"{name} {status}", media_type, content

    for event, operations in DOCUMENT["webhooks"].items():
        for media_type, content in operations["post"]["requestBody"]["content"].items():
            yield f"{event} event", media_type, content


def examples_of(content: dict) -> list:
    if "example" in content:
        return [content["example"]]
    if "examples" in content:
        return [example["value"] for example in content["examples"].values()]
    examples: list = resolved(content["schema"]).get("examples", [])
    return examples


def test_operation_ids_are_unique_and_read_like_methods():
    names = [operation["operationId"] for _method, _path, operation in OPERATIONS]

    assert [name for name, count in Counter(names).items() if count > 1] == []
    assert [name for name in names if not re.fullmatch(r"[a-z]+([A-Z][a-z0-9]*)*", name)] == []
    assert {"upscale", "listRenders", "getRender", "uploadFile"} <= set(names)


def test_every_operation_has_one_tag_and_says_what_it_does():
    described = {tag["name"] for tag in DOCUMENT["tags"]}

    for _method, path, operation in OPERATIONS:
        assert len(operation["tags"]) == 1 and set(operation["tags"]) <= described, path
        assert operation.get("description"), path
    assert described == {tag for _method, _path, operation in OPERATIONS for tag in operation["tags"]}


def test_errors_are_named_one_by_one_and_look_the_same():
    for method, path, operation in OPERATIONS:
        responses = operation["responses"]
        assert {"default", "422"}.isdisjoint(responses), path
        assert {"400", "500"} <= responses.keys(), path
        if "security" in operation:
            assert {"401", "403", "429", "503"} <= responses.keys(), path
            assert operation["security"] == [{"HTTPBearer": []}, {"APIKeyHeader": []}], path
        if "{" in path:
            assert "404" in responses, (method, path)
        for status, response in responses.items():
            headers = resolved(response)["headers"].keys()
            assert "X-Request-ID" in headers
            if status >= "400":
                schema = resolved(response)["content"][JSON]["schema"]
                assert schema == {"$ref": "#/components/schemas/ErrorsBody"}, (path, status)
            assert (status in ("429", "503")) == ("Retry-After" in headers)
            assert (status == "401") == ("WWW-Authenticate" in headers)


def test_every_body_has_examples_and_they_are_valid():
    missing, faults = [], []
    for name, media_type, content in bodies():
        examples = examples_of(content)
        if not examples and media_type.endswith("json"):
            missing.append(name)
        schema = {**content["schema"], "components": DOCUMENT["components"]}
        validator = jsonschema_rs.validator_for(schema, validate_formats=True)
        faults += [(name, str(error)) for example in examples for error in validator.iter_errors(example)]

    assert missing == []
    assert faults == []


def test_every_event_of_a_webhook_is_described():
    assert list(DOCUMENT["webhooks"]) == list(WebhookEvent)
    for operations in DOCUMENT["webhooks"].values():
        assert operations["post"]["tags"] == ["webhooks"]
        assert operations["post"]["responses"].keys() == {"2XX", "410", "default"}


def test_answers_hold_no_nulls():
    for name, media_type, content in bodies():
        if not name.endswith("request") and media_type == JSON:
            assert '"null"' not in json.dumps(resolved(content["schema"])), name


def test_the_file_in_docs_is_current():
    assert PAGE.read_text() == openapi_page(), "run python -m app.http.openapi_page"


def test_the_server_gives_the_same_description(stranger: httpx.Client):
    document = stranger.get("/openapi.json").json()

    assert document["servers"] == [{"url": "/"}]
    written = json.loads(PAGE.read_text())
    assert written["servers"] == [{"url": SERVER_URL}]
    assert document | {"servers": []} == written | {"servers": []}
    metrics = stranger.get("/metrics").text
    assert 'regen_http_requests_total{method="GET",route="/openapi.json",status="200"} 1.0' in metrics


def test_the_description_says_where_clients_reach_the_server(serve, settings, key):
    client = serve(settings.model_copy(update={"public_url": "https://regen.example.com/api"}), key=key)

    assert client.get("/openapi.json").json()["servers"] == [{"url": "https://regen.example.com/api"}]


def test_the_page_for_people_needs_nothing_from_elsewhere(stranger: httpx.Client):
    page = stranger.get("/docs")

    if importlib.util.find_spec("fastapi_offline") is None:
        assert page.status_code == 404
        pytest.skip("fastapi-offline, which carries the page's files, is not installed")
    assert page.status_code == 200
    addresses = re.findall(r"""(?:src|href)="([^"]+)"|url: '([^']+)'""", page.text)
    paths = [urljoin("/docs", script or described) for script, described in addresses]
    assert len(paths) == 4 and all(path.startswith("/") for path in paths), paths
    for path in paths:
        assert stranger.get(path).status_code == 200, path
    assert "https://" not in page.text
    assert stranger.get("/docs/redoc.standalone.js").status_code == 404


def test_every_operation_answers_as_described_and_its_line_has_its_id(
    stranger: httpx.Client, monkeypatch: pytest.MonkeyPatch
):
    capture = LogCapture()
    log = structlog.wrap_logger(
        structlog.ReturnLogger(), processors=[structlog.contextvars.merge_contextvars, capture]
    )
    monkeypatch.setattr("app.http.request_log.log", log)
    for number, (method, path, operation) in enumerate(OPERATIONS):
        headers = {"X-Request-ID": f"operation-{number}"}
        answer = stranger.request(method, re.sub(r"\{[^}]*\}", "x", path), headers=headers)

        assert str(answer.status_code) in operation["responses"], (method, path, answer.text)
        assert ("security" in operation) == (answer.status_code == 401), (method, path, answer.text)
        assert answer.headers["X-Request-ID"] == f"operation-{number}"

    def lines() -> dict[str, str]:
        return {
            line["request_id"]: line["route"] for line in capture.entries if line["event"] == "request_done"
        }

    wait_until(lambda: len(lines()) == len(OPERATIONS), seconds=20, what="every line is written")
    assert lines() == {f"operation-{number}": path for number, (_, path, _) in enumerate(OPERATIONS)}
