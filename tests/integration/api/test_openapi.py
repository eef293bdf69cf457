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
import yaml
from structlog.testing import LogCapture

from app.http.openapi import operations_of
from app.http.openapi_page import PAGE, SERVER_URL, openapi_page
from app.webhooks.statuses import WebhookEvent
from tests.integration.api.description import DESCRIPTION as DOCUMENT
from tests.servers.process import wait_until

OPERATIONS = list(operations_of(DOCUMENT))
JSON = "application/json"


def parts_of(part: object):
    """The part, and every JSON object inside it."""
    if isinstance(part, dict):
        yield part
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from parts_of(inner)


# These are no types: generators pass `if` over.
CONDITIONS = [part["if"] for part in parts_of(DOCUMENT) if "if" in part]


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
    used = {tag for _method, _path, operation in OPERATIONS for tag in operation["tags"]}
    assert described - used == {"events"}  # of what this server sends


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
        assert operations["post"]["tags"] == ["events"]
        assert operations["post"]["responses"].keys() == {"2XX", "410", "default"}


def test_generators_know_every_media_type_or_are_told_what_it_is():
    """openapi-python-client warns of the rest, and leaves their answers out."""
    settings = yaml.safe_load((PAGE.parent / "openapi-python-client.yml").read_text())
    overrides = settings["content_type_overrides"]
    answered = {media_type for name, media_type, _content in bodies() if name.split()[-1].isdigit()}

    def is_known(media_type: str) -> bool:
        known = ("application/json", "application/octet-stream")
        return media_type.startswith("text/") or media_type in known or media_type.endswith("+json")

    assert {one for one in answered if not is_known(overrides.get(one, one))} == set()
    assert overrides.keys() <= answered


def test_names_do_not_collide_with_what_generators_make_of_them():
    schemas = DOCUMENT["components"]["schemas"]

    # Go's constructors, and types of the languages that a generated module would hide.
    assert [name for name in schemas if name.removeprefix("New") != name] == []
    assert {"File", "Blob", "Date", "Error", "Object", "Map", "Set", "Request", "Response"}.isdisjoint(
        schemas
    )
    constants: Counter[str] = Counter()
    for schema in schemas.values():
        values = schema.get("x-enum-varnames", schema.get("enum", []))
        assert len(values) == len(schema.get("enum", []))
        constants.update(value.upper().replace(".", "_") for value in values)
    assert [name for name, count in constants.items() if count > 1] == []
    tags = {tag for _method, _path, operation in OPERATIONS for tag in operation["tags"]}
    for operations in DOCUMENT["webhooks"].values():
        assert tags.isdisjoint(operations["post"]["tags"])


def test_alternatives_are_whole_types():
    """A member of `oneOf`, `anyOf` or `allOf` that only requires properties is a type without any to generators."""
    for part in parts_of(DOCUMENT):
        members = [member for word in ("oneOf", "anyOf", "allOf") for member in part.get(word, ())]
        if part not in CONDITIONS:
            assert [
                member for member in members if not {"type", "$ref", "const", "enum"} & member.keys()
            ] == []


@pytest.mark.parametrize(
    ("given", "is_valid"),
    [
        ({"file": "bytes"}, True),
        ({"file_id": "a", "target_fps": 23.976}, True),
        ({"file_url": "https://example.com/a.mp4"}, True),
        ({"target_fps": 23.976}, False),
        ({"file": "bytes", "file_id": "a"}, False),
    ],
)
def test_a_request_names_exactly_one_video(given: dict, is_valid: bool):
    for operation in ("/v1/upscale", "/v1/estimates"):
        content = DOCUMENT["paths"][operation]["post"]["requestBody"]["content"]
        schema = content["multipart/form-data"]["schema"]
        assert jsonschema_rs.validator_for(schema).is_valid(given) == is_valid
        # Generators make one type of equal schemas.
        assert content[JSON]["schema"] == schema


def test_json_comes_first_of_several_types_of_body():
    """Generators take the fields of the first type, and send JSON where it is among them."""
    for _method, path, operation in OPERATIONS:
        types = list(operation.get("requestBody", {}).get("content", {}))
        assert len(types) <= 1 or types == [JSON, "multipart/form-data"], path


def test_numbers_are_as_wide_as_they_may_be():
    for part in parts_of(DOCUMENT):
        if part.get("type") == "integer":
            assert part.get("format") == "int64" or part["maximum"] < 2**31, part
        if part.get("type") == "number":
            assert part.get("format") == "double", part


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
