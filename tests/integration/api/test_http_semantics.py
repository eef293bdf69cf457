"""What HTTP defines beside any route's own meaning: one behaviour at every address of the description."""

import contextlib
import gzip
import json
import re
import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from app.accounts import service as account_service
from app.accounts.scopes import Scope
from app.http.connections import ConnectionLimits
from app.http.openapi import operations_of
from app.main import create_app
from app.platform.secrets import Secrets
from tests.integration.api.description import DESCRIPTION
from tests.servers.serving import serving

# Beside what is described.
OTHERS = ("/renders/{render_id}", "/openapi.json", "/docs", "/docs/favicon.png", "/metrics", "/storage/x")
EVENTS = "/v1/renders/{render_id}/events"
GETS = [path for method, path, _ in operations_of(DESCRIPTION) if method == "GET"] + list(OTHERS)
# What takes a form without a file takes this as well: the description says so in words.
IN_WORDS = {"application/x-www-form-urlencoded": {}}
WITH_BODIES = [
    (
        method,
        path,
        operation["requestBody"]["content"] | (IN_WORDS if path in ("/v1/upscale", "/v1/estimates") else {}),
    )
    for method, path, operation in operations_of(DESCRIPTION)
    if "requestBody" in operation
]
WITH_JSON = [
    (method, path, content) for method, path, content in WITH_BODIES if "application/json" in content
]


@pytest.fixture
def client(server: str, database, settings) -> Iterator[httpx.Client]:
    """With a key that may do everything."""
    with database.write() as session:
        account_service.create_user(session, name="ann")
        key = account_service.create_key(
            session, user_name="ann", key_name="all", keys=Secrets.load(settings), scopes=frozenset(Scope)
        ).key
    with httpx.Client(base_url=server, headers={"X-API-Key": key}, timeout=60) as client:
        yield client


# What they tell changes with time.
CHANGING = ("/metrics", "/v1/admin/activity")


def filled(path: str, **ids: str) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: ids.get(found[1], "abc"), path)


def comparable(response: httpx.Response) -> dict[str, str]:
    """The headers that the same request gets again."""
    return {name: value for name, value in response.headers.items() if name not in ("date", "x-request-id")}


def test_head_is_answered_as_get_without_the_body(client, clip):
    with clip.open("rb") as file:
        made = client.post("/v1/upscale", files={"file": file}).json()["render"]
    ids = {"render_id": made["id"], "file_id": made["fileId"]}
    for path in GETS:
        address = filled(path, **ids)

        head = client.head(address)

        assert head.content == b"", path
        if path == EVENTS:
            assert head.headers["Content-Type"].startswith("text/event-stream")
            assert head.status_code == 200
            continue
        got = client.get(address)
        expected = comparable(got)
        if path in CHANGING:
            expected["content-length"] = head.headers["Content-Length"]
        assert (head.status_code, comparable(head)) == (got.status_code, expected), path
        assert int(head.headers["Content-Length"]) > 0, path
    assert client.head("/v1/renders").status_code == 200, "the connection is in order"


def test_head_needs_what_get_needs(stranger):
    for path in GETS:
        assert stranger.head(filled(path)).status_code == stranger.get(filled(path)).status_code, path


def test_only_the_list_of_parts_may_be_long(client):
    """JSON is read at one go: while a process reads it, nobody else is answered."""
    parts = [{"number": number, "etag": f'"{number:032x}"'} for number in range(1, 10_001)]
    for path in {path for _, path, _ in WITH_JSON}:
        method = next(method for method, other, _ in WITH_JSON if other == path)
        response = client.request(method, filled(path), json={"parts": parts})
        # There is no such upload.
        assert response.status_code == (404 if path.endswith("/complete") else 413), path


@pytest.mark.parametrize("path", [path for path in GETS if path.startswith("/v1/") and path != EVENTS])
def test_caches_keep_nothing_that_needed_a_key(client, path):
    """Whatever the answer, and however the key was sent: a shared cache passes it to nobody else."""
    response = client.get(filled(path))
    assert response.status_code in (200, 404, 409, 422, 400)
    assert response.headers["Cache-Control"].split(",")[0] in ("no-store", "private")


def test_options_and_allow_name_the_methods_of_each_address(stranger):
    for path, operations in DESCRIPTION["paths"].items():
        allowed = {method.upper() for method in operations} | {"OPTIONS"}
        allowed |= {"HEAD"} if "GET" in allowed else set()

        told = stranger.options(filled(path))
        refused = stranger.put(filled(path))

        assert (told.status_code, told.content, refused.status_code) == (204, b"", 405), path
        for response in (told, refused):
            assert set(response.headers["Allow"].split(", ")) == allowed, path
    assert stranger.options("/nowhere").status_code == 404


def test_options_of_the_whole_server(server):
    address = urlsplit(server)
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        connection.sendall(b"OPTIONS * HTTP/1.1\r\nHost: regen.test\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 204 ")
    assert b"allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n" in answer


@pytest.mark.parametrize("coding", ["gzip", "identity, BR"])
def test_a_compressed_body_is_refused_with_the_reason(client, coding):
    for method, path, content in WITH_BODIES:
        for media_type in content:
            kind = f"{media_type}; boundary=b" if media_type.startswith("multipart") else media_type
            headers = {"Content-Encoding": coding, "Content-Type": kind}

            response = client.request(method, filled(path), content=gzip.compress(b"{}"), headers=headers)

            assert response.status_code == 415, (method, path)
            assert response.headers["Accept-Encoding"] == "identity"
            assert "compressed" in response.json()["errors"][0]["message"]


def test_a_body_that_is_not_compressed_may_say_so(client):
    response = client.post("/v1/upscale", json={"file_id": "abc"}, headers={"Content-Encoding": "identity"})

    assert response.status_code == 404


def test_json_in_any_unicode_encoding(client):
    for method, path, content in WITH_JSON:
        example = example_of(content["application/json"])
        statuses = set()
        for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"):
            response = client.request(
                method,
                filled(path),
                content=json.dumps(example).encode(encoding),
                headers={"Content-Type": "application/json"},
            )
            statuses.add(response.status_code)
            assert "JSON" not in response.text, (method, path, encoding)
        # A name may be taken once, or taken already.
        assert len(statuses - {409}) <= 1, (method, path, statuses)


@pytest.mark.parametrize("body", [b"{", b'{"name": "\xe9"}', b"\xff\xfe{", b"[" * 60_000])
def test_what_is_not_json(client, body):
    for method, path, _content in WITH_JSON:
        response = client.request(
            method, filled(path), content=body, headers={"Content-Type": "application/json"}
        )

        message = {"errors": [{"message": "The body is not valid JSON."}]}
        assert (response.status_code, response.json()) == (400, message), (method, path)


def test_a_body_that_does_not_come(settings, client):
    limits = replace(ConnectionLimits.from_settings(settings), patience_seconds=0.5)
    with serving(create_app(settings), limits=limits) as url, contextlib.ExitStack() as stack:
        asked = []
        for method, path, content in WITH_BODIES:
            for media_type in content:
                connection = stack.enter_context(
                    socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=30)
                )
                head = (
                    f"{method} {filled(path)} HTTP/1.1\r\nHost: regen.test\r\nContent-Length: 100\r\n"
                    f"Content-Type: {media_type}; boundary=b\r\nX-API-Key: {client.headers['X-API-Key']}\r\n\r\n"
                )
                connection.sendall(head.encode() + b"{")
                asked.append((path, connection))
        for path, connection in asked:
            answer = b"".join(iter(lambda connection=connection: connection.recv(65536), b""))
            assert answer.startswith(b"HTTP/1.1 408 "), path
            assert b"The body did not arrive, or arrived too slowly." in answer


def example_of(media_type: dict[str, Any]) -> Any:
    if "example" in media_type:
        return media_type["example"]
    schema = media_type["schema"]
    if "$ref" in schema:
        schema = DESCRIPTION["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    return schema["examples"][0]
