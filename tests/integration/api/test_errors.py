import asyncio
import shutil
import socket
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel
from sqlalchemy import text

UNEXPECTED = {"errors": [{"message": "An unexpected error occurred while processing the request."}]}


class Point(BaseModel):
    x: int
    y: int


def secret_detail() -> None:
    raise RuntimeError("the secret is 42")


@pytest.fixture
def app(app: FastAPI) -> FastAPI:
    """The application with routes that break."""

    class Crashing:
        def __init__(self, inner) -> None:
            self.inner = inner

        async def __call__(self, scope, receive, send) -> None:
            if scope.get("path") == "/crash/middleware":
                secret_detail()
            await self.inner(scope, receive, send)

    # The first one added is the innermost.
    app.user_middleware.append(app.user_middleware[0].__class__(Crashing))

    app.get("/crash/sync")(secret_detail)

    @app.get("/crash/async")
    async def crash():
        await asyncio.sleep(0)
        secret_detail()

    @app.post("/points/{number}")
    def point(number: int, body: Point, shade: float = 0):
        return body

    return app


@pytest.mark.parametrize("path", ["/crash/sync", "/crash/async", "/crash/middleware"])
def test_a_crash(stranger: httpx.Client, logs, path):
    response = stranger.get(path)

    assert (response.status_code, response.json()) == (500, UNEXPECTED)
    assert [(entry["event"], entry["path"]) for entry in logs] == [("request_crashed", path)]
    assert logs[0]["exc_info"]
    assert stranger.get("/healthz").status_code == 200


def test_wrong_methods(stranger):
    for method, path, allowed in (
        ("GET", "/v1/upscale", {"POST"}),
        ("PUT", "/v1/upscale", {"POST"}),
        ("PUT", "/v1/renders/abc", {"GET", "HEAD", "DELETE"}),
        ("DELETE", "/renders/abc", {"GET", "HEAD"}),
        ("GET", "/v1/renders/abc/cancel", {"POST"}),
        ("PATCH", "/healthz", {"GET", "HEAD"}),
        ("POST", "/storage/a", {"GET", "HEAD"}),
    ):
        response = stranger.request(method, path)

        assert response.status_code == 405
        message = f"The method {method} is not allowed at this address."
        assert response.json() == {"errors": [{"message": message}]}
        assert set(response.headers["Allow"].split(", ")) == allowed | {"OPTIONS"}


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_unknown_addresses(stranger, method):
    near = "Look at the client's base URL for a slash or `/v1` too many or too few."
    for path, meant in {
        **dict.fromkeys(("/v1", "/v2/upscale", "/v1/render", "/%2e%2e/x", "//v1//nothing/")),
        "/v1/upscale/": "/v1/upscale",
        "/v1//files": "/v1/files",
        "//v1/upscale": "/v1/upscale",
        "/v1/v1/renders/abc": "/v1/renders/abc",
        "/v1/upscale%20": "/v1/upscale",
        "/files": "/v1/files",
        "/healthz/": "/healthz",
        "/v1/v1/files/%1b%0a" + 99 * "x": f"/v1/files/\\x1b\\n{48 * 'x'}…",
    }.items():
        response = stranger.request(method, path, content=b"{" if method == "POST" else None)

        assert response.status_code == 404
        end = "." if meant is None else f": did you mean {meant}? {near}"
        assert response.json() == {"errors": [{"message": f"There is nothing at this address{end}"}]}


def test_faulty_parameters_have_a_message_each(stranger):
    response = stranger.post("/points/one?shade=dark", json={"x": "left"})

    assert response.status_code == 400
    messages = [error["message"] for error in response.json()["errors"]]
    assert len(messages) == 4
    assert [message.split("`")[1] for message in messages] == ["number", "shade", "x", "y"]
    assert messages[-1] == "`y` is required."


def test_faulty_json_of_a_declared_body(stranger):
    response = stranger.post("/points/1", content=b"{", headers={"Content-Type": "application/json"})

    assert (response.status_code, response.json()) == (
        400,
        {"errors": [{"message": "The body is not valid JSON."}]},
    )


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_that_nobody_streams_is_small(client, announced):
    part = b'{"x": 1, "y": 2}' + b" " * 1024**2
    headers = {"Content-Type": "application/json"}

    small = client.post("/points/1", content=part, headers=headers)
    large = client.post("/points/1", content=3 * part if announced else iter([part] * 3), headers=headers)

    assert (small.status_code, large.status_code) == (200, 413)
    (error,) = large.json()["errors"]
    assert (
        error["message"] == "The request's body is larger than 64 KiB, or than 2 MiB to complete an upload."
    )


def test_the_database_is_away(client, database, logs):
    with database.write() as session:
        session.execute(text("DROP TABLE api_keys"))

    # Not a read: those wait for it to come back.
    response = client.post("/v1/upscale", json={"file_id": "x"})

    assert response.status_code == 503
    assert response.json() == {"errors": [{"message": "The database cannot be reached just now."}]}
    assert int(response.headers["Retry-After"]) > 0
    assert "api_keys" in logs[0]["detail"]


def test_the_storage_is_away(client, clip, settings, spool_files):
    shutil.rmtree(settings.storage_dir)
    settings.storage_dir.write_text("a file in the place of the directory")

    with clip.open("rb") as file:
        response = client.post("/v1/upscale", files={"file": file})

    assert response.status_code == 503
    message = "The storage cannot be used just now. Try again soon."
    assert response.json() == {"errors": [{"message": message}]}
    assert int(response.headers["Retry-After"]) > 0
    assert spool_files() == []


def test_bodies_that_are_no_multipart(client, spool_files):
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\nabc\r\n'
    cases = {
        b"": "The multipart body ends before its closing boundary.",
        part: "The multipart body ends before its closing boundary.",
        part[:40]: "The multipart body ends before its closing boundary.",
        part + b"--b-": "The multipart body ends before its closing boundary.",
        b"hello": "The body is not valid multipart/form-data.",
        b"--other\r\n": "The body is not valid multipart/form-data.",
        b"--b\r\nno header\r\n\r\n": "The body is not valid multipart/form-data.",
        b"--b\r\n" + b"X: " + b"y" * 9000: "The body is not valid multipart/form-data.",
        b"--b\r\n" + b"X: y\r\n" * 100: "The body is not valid multipart/form-data.",
        b"--b\r\nX: y\r\n\r\nabc\r\n--b--": "A part of the form has no name.",
        part.replace(
            b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        ): "`file` must be sent as it is, without a transfer encoding.",
        part.replace(b"file", b"other") * 65 + b"--b--": "The form has more than 64 parts.",
    }
    for body, message in cases.items():
        response = client.post(
            "/v1/upscale", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"}
        )
        assert (response.status_code, response.json()) == (400, {"errors": [{"message": message}]}), body[
            :100
        ]
    for content_type in (
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary=""',
    ):
        response = client.post("/v1/upscale", content=part, headers={"Content-Type": content_type})
        assert response.status_code == 400
        assert "boundary" in response.json()["errors"][0]["message"]
    response = client.post(
        "/v1/upscale", content=part, headers={"Content-Type": "multipart/form-data; boundary=" + "b" * 300}
    )
    assert response.status_code == 400
    assert spool_files() == []


def test_what_is_not_http(server):
    address = urlsplit(server)
    for request in (b"hello\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 100_000):
        with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
            connection.sendall(request)
            answer = b""
            while not answer.endswith(b"}]}"):
                chunk = connection.recv(65536)
                assert chunk, answer
                answer += chunk
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ")
        assert body.startswith(b'{"errors":[{"message":"This is not a valid HTTP/1.1 request')
    assert httpx.get(f"{server}/healthz").status_code == 200
