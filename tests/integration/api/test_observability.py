"""What is noted of requests: their ids and their lines in the log."""

import logging
import re
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
import structlog
from fastapi import FastAPI
from sqlalchemy import select
from starlette.responses import StreamingResponse
from structlog.testing import LogCapture

from app.renders.tables import Render
from tests.servers.process import wait_until

Done = Callable[[int], list[dict[str, Any]]]

MADE_ID = re.compile(r"[A-Za-z0-9]{16}")
MIB = 1024**2
WAIT_SECONDS = 20.0


@pytest.fixture
def capture() -> LogCapture:
    return LogCapture()


@pytest.fixture
def log(capture: LogCapture) -> Any:
    """A logger into `capture`, with what is bound to the context."""
    return structlog.wrap_logger(
        structlog.ReturnLogger(),
        processors=[structlog.contextvars.merge_contextvars, structlog.stdlib.add_log_level, capture],
        wrapper_class=structlog.make_filtering_bound_logger(0),
    )


@pytest.fixture
def lines(capture: LogCapture, log: Any, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the API logs, from `debug` up."""
    for module in (
        "http.errors",
        "http.middleware",
        "renders.created_answer",
        "http.request_log",
        "http.uvicorn_protocol",
    ):
        monkeypatch.setattr(f"app.{module}.log", log)
    return capture.entries  # type: ignore[return-value]


@pytest.fixture
def done(lines) -> Done:
    """The lines of the requests that are done, once there are so many: a line comes after its answer."""

    def wait(count: int) -> list[dict[str, Any]]:
        def found() -> list[dict[str, Any]]:
            return [line for line in lines if line["event"] == "request_done"]

        wait_until(lambda: len(found()) >= count, seconds=WAIT_SECONDS, what=f"{count} requests are done")
        assert len(found()) == count
        return found()

    return wait


@pytest.fixture
def app(app: FastAPI, log: Any) -> FastAPI:
    """The application with routes that break, log in a thread, or never end."""

    @app.get("/crash")
    def crash() -> None:
        raise RuntimeError("a defect")

    @app.get("/threaded")
    def threaded() -> None:
        log.info("inside")

    @app.get("/endless")
    def endless() -> StreamingResponse:
        def chunks():
            while True:
                yield b"x" * MIB

        return StreamingResponse(chunks())

    return app


def connect(server: str) -> socket.socket:
    address = urlsplit(server)
    return socket.create_connection((address.hostname, address.port), timeout=WAIT_SECONDS)


class TestRequestIds:
    def test_a_clients_own_is_kept_when_it_is_sane(self, stranger):
        for given in ("a", "0f8fad5b-d9cb-469f-a165-70867728950e", "trace.1_2-3", "x" * 64):
            response = stranger.get("/healthz", headers={"X-Request-ID": given})

            assert response.headers.get_list("X-Request-ID") == [given]
        for given in ("", "x" * 65, "a b", "a\tb", "-a", "<script>", "a;b", "é".encode("latin-1"), 'a"b'):
            response = stranger.get("/healthz", headers={"X-Request-ID": given})

            assert MADE_ID.fullmatch(response.headers["X-Request-ID"]), given

    def test_every_answer_has_one(self, client, clip, lines):
        with clip.open("rb") as content:
            answers = [
                client.post("/v1/upscale", files={"file": content}),
                client.post("/v1/upscale", json={}),
                client.get("/v1/files/none"),
                client.get("/v1/files/none", headers={"Authorization": ""}),
                client.put("/v1/upscale"),
                client.get("/crash"),
                # Refused before its body is read
                client.post("/v1/files", content=b"x" * 3 * MIB, headers={"Authorization": ""}),
            ]
            answers.append(client.get(answers[0].json()["render"]["inputFileURL"]))

        assert [answer.status_code for answer in answers] == [200, 400, 404, 401, 405, 500, 401, 200]
        ids = [answer.headers["X-Request-ID"] for answer in answers]
        assert all(MADE_ID.fullmatch(one) for one in ids)
        assert len(set(ids)) == len(ids)

    def test_what_is_not_http_has_one_too(self, server, lines):
        with connect(server) as connection:
            connection.sendall(b"hello\r\n\r\n")
            head = connection.makefile("rb").read().partition(b"\r\n\r\n")[0].decode()

        (line,) = [line for line in lines if line["event"] == "request_unreadable"]
        assert f"x-request-id: {line['request_id']}\r\n" in f"{head}\r\n"

    def test_it_is_written_down_with_the_render(self, client, clip, database, lines):
        with clip.open("rb") as content:
            first = client.post(
                "/v1/upscale", files={"file": content}, headers={"X-Request-ID": "from-a-client"}
            )
        file_id = first.json()["render"]["fileId"]
        second = client.post("/v1/upscale", json={"file_id": file_id})

        with database.read() as session:
            rows = dict(session.execute(select(Render.id, Render.request_id)).all())
        assert rows == {
            first.json()["render"]["id"]: "from-a-client",
            second.json()["render"]["id"]: second.headers["X-Request-ID"],
        }
        created = [line for line in lines if line["event"] == "render_created"]
        assert {line["render_id"]: line["request_id"] for line in created} == rows


class TestLines:
    def test_one_for_each_request(self, client, server, clip, database, done: Done):
        with clip.open("rb") as content:
            created = client.post("/v1/upscale", files={"file": content})
        render = created.json()["render"]
        client.get(f"/v1/renders/{render['id']}")
        client.get("/v1/renders/none?signature=abc", headers={"Authorization": "Bearer wrong"})
        client.request("BREW", "/some/where")

        first, second, third, fourth = done(4)

        assert first | {"duration_ms": 0} == {
            "event": "request_done", "level": "info", "log_level": "info", "method": "POST", "route": "/v1/upscale",
            "status": 200, "duration_ms": 0, "response_bytes": len(created.content), "client": "127.0.0.1",
            "user_id": render["userId"], "request_id": created.headers["X-Request-ID"],
        }  # fmt: skip
        assert first["duration_ms"] > 0
        assert (second["route"], second["render_id"]) == ("/v1/renders/{render_id}", render["id"])
        assert (third["status"], "user_id" in third) == (401, False)
        assert (fourth["method"], fourth["route"], fourth["status"]) == ("other", "unmatched", 404)
        assert "abc" not in str(third)

    def test_probes_are_for_debugging(self, client, done: Done):
        for path in ("/healthz", "/readyz", "/metrics", "/v1/engines"):
            client.get(path)

        assert [line["level"] for line in done(4)] == ["debug", "debug", "debug", "info"]

    def test_every_line_of_a_request_has_its_id(self, stranger, lines, done: Done):
        crashed = stranger.get("/crash")
        # The same connection, so that one request's context could reach the next.
        threaded = stranger.get("/threaded")
        done(2)

        assert [(line["event"], line["request_id"]) for line in lines] == [
            ("request_crashed", crashed.headers["X-Request-ID"]),
            ("request_done", crashed.headers["X-Request-ID"]),
            ("inside", threaded.headers["X-Request-ID"]),
            ("request_done", threaded.headers["X-Request-ID"]),
        ]
        assert lines[1]["status"] == 500

    def test_a_client_that_leaves_while_it_sends(self, server, key, done: Done):
        head = (
            f"POST /v1/files HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\nContent-Length: 100000\r\n"
            "Content-Type: multipart/form-data; boundary=b\r\n\r\n--b"
        )
        with connect(server) as connection:
            connection.sendall(head.encode())

        (line,) = done(1)

        assert (line["status"], line["aborted"]) == (499, True)

    def test_a_client_that_leaves_while_it_reads(self, server, done: Done):
        with connect(server) as connection:
            connection.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(64)

        (line,) = done(1)

        assert (line["route"], line["status"], line["aborted"]) == ("/endless", 200, True)

    def test_a_client_that_has_its_answer_and_goes_has_not_left(self, server, done: Done):
        with connect(server) as connection:
            connection.sendall(b"POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\nsome")
            assert connection.recv(64).startswith(b"HTTP/1.1 401 ")

        (line,) = done(1)

        assert (line["status"], "aborted" in line) == (401, False)


def test_another_servers_access_lines_hold_no_signatures(server, caplog):
    """Whoever runs the application under plain uvicorn has its lines beside ours."""
    with caplog.at_level(logging.INFO, logger="uvicorn.access"):
        logging.getLogger("uvicorn.access").info(
            '%s - "%s %s HTTP/%s" %d', "127.0.0.1:1", "GET", "/storage/a?name=x&signature=abc", "1.1", 200
        )

    assert caplog.messages == ['127.0.0.1:1 - "GET /storage/a HTTP/1.1" 200']
