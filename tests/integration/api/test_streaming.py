"""Bodies as they come over a real connection: early answers, broken uploads, full disks, flat memory."""

import os
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from app.http.connections import ConnectionLimits
from tests.servers.process import wait_until
from tests.servers.serving import serving

MIB = 1024**2
FILE_HEAD = b'--b\r\nContent-Disposition: form-data; name="file"; filename="clip.mp4"\r\n\r\n'
MULTIPART = "multipart/form-data; boundary=b"


def connect(server: str) -> socket.socket:
    address = urlsplit(server)
    return socket.create_connection((address.hostname, address.port), timeout=30)


def head(method_and_path: str, *headers: str) -> bytes:
    return "\r\n".join([f"{method_and_path} HTTP/1.1", "Host: regen.test", *headers, "", ""]).encode()


def read_answer(connection: socket.socket) -> tuple[bytes, bytes]:
    """Head and body of one answer that has a Content-Length."""
    received = b""
    while b"\r\n\r\n" not in received:
        chunk = connection.recv(65536)
        assert chunk, f"the connection ended after {received!r}"
        received += chunk
    top, _, body = received.partition(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in top.lower().split(b"\r\n") if line.startswith(b"content-length:")
    )
    while len(body) < length:
        body += connection.recv(65536)
    return top, body


class TestEarlyAnswers:
    def test_a_refusal_does_not_wait_for_the_body(self, server, spool_files):
        with connect(server) as connection:
            connection.sendall(
                head("POST /v1/upscale", f"Content-Type: {MULTIPART}", f"Content-Length: {500 * MIB}")
                + FILE_HEAD
            )

            top, body = read_answer(connection)

        assert top.startswith(b"HTTP/1.1 401 ")
        assert b"connection: close" in top.lower()
        assert body == b'{"errors":[{"message":"A valid API key is required."}]}'
        assert spool_files() == []

    def test_a_client_that_asks_before_it_sends_is_never_told_to(self, server):
        with connect(server) as connection:
            connection.sendall(head("POST /v1/files", f"Content-Length: {500 * MIB}", "Expect: 100-continue"))

            top, _body = read_answer(connection)

        assert top.startswith(b"HTTP/1.1 401 ")

    @pytest.mark.parametrize("announced", [True, False])
    def test_a_client_that_sends_everything_first_gets_the_answer(self, server, announced):
        # More than every socket buffer holds: without somebody who reads, the client could not finish.
        size_bytes = 40 * MIB
        content = (b"x" * 65536 for _ in range(size_bytes // 65536))
        headers = {"Content-Length": str(size_bytes)} if announced else {}

        response = httpx.post(f"{server}/v1/upscale", content=content, headers=headers, timeout=30)

        assert response.status_code == 401

    def test_too_large_an_upload_is_refused_when_it_is_announced(self, server, key, spool_files):
        with connect(server) as connection:
            connection.sendall(
                head(
                    "POST /v1/upscale",
                    f"X-API-Key: {key}",
                    f"Content-Type: {MULTIPART}",
                    f"Content-Length: {2**31 + 2 * MIB}",
                )
            )

            top, body = read_answer(connection)

        assert top.startswith(b"HTTP/1.1 413 ")
        assert body == b'{"errors":[{"message":"The file is larger than the limit of 2 GiB."}]}'
        assert spool_files() == []

    def test_a_small_body_does_not_cost_the_connection(self, server, key):
        with connect(server) as connection:
            for _number in range(2):
                connection.sendall(head("POST /v1/upscale", "Content-Length: 100000"))
                top, _body = read_answer(connection)
                assert top.startswith(b"HTTP/1.1 401 ")
                assert b"connection: close" not in top.lower()
                connection.sendall(b"x" * 100_000)
            connection.sendall(head("GET /v1/engines", f"X-API-Key: {key}"))
            top, _body = read_answer(connection)

        assert top.startswith(b"HTTP/1.1 200 ")

    def test_an_endless_body_is_cut_off(self, server):
        sent = 0
        with connect(server) as connection, pytest.raises(OSError):
            connection.sendall(head("POST /v1/upscale", "Transfer-Encoding: chunked"))
            while sent < 1024 * MIB:
                connection.sendall(b"100000\r\n" + b"x" * MIB + b"\r\n")
                sent += MIB

        assert sent < 256 * MIB


class TestBrokenUploads:
    def upload_head(self, key: str, size_bytes: int) -> bytes:
        return head(
            "POST /v1/upscale",
            f"Authorization: Bearer {key}",
            f"Content-Type: {MULTIPART}",
            f"Content-Length: {size_bytes}",
        )

    @pytest.mark.parametrize("reset", [False, True])
    def test_a_client_that_leaves_half_way(self, server, key, spool_files, stored_files, client, logs, reset):
        with connect(server) as connection:
            connection.sendall(self.upload_head(key, 50 * MIB) + FILE_HEAD + b"x" * (3 * MIB))
            wait_until(lambda: spool_files() != [])
            if reset:
                connection.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, (1).to_bytes(4, sys.byteorder) + bytes(4)
                )
        wait_until(lambda: spool_files() == [])
        wait_until(lambda: any(entry["event"] == "client_disconnected" for entry in logs))

        assert {entry["event"] for entry in logs} == {"client_disconnected"}
        assert stored_files() == []
        assert client.get("/v1/engines").status_code == 200

    def test_a_slow_client(self, server, key, clip):
        body = FILE_HEAD + clip.read_bytes() + b"\r\n--b--\r\n"
        with connect(server) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(self.upload_head(key, len(body)))
            # Byte by byte through the part's headers, then in odd pieces.
            for number in range(len(FILE_HEAD) + 20):
                connection.sendall(body[number : number + 1])
            for start in range(len(FILE_HEAD) + 20, len(body), 7919):
                connection.sendall(body[start : start + 7919])

            top, answer = read_answer(connection)

        assert top.startswith(b"HTTP/1.1 200 "), answer

    def test_a_client_that_falls_silent(self, app, settings, key, spool_files):
        limits = replace(ConnectionLimits.from_settings(settings), patience_seconds=0.3)
        with serving(app, limits=limits) as server, connect(server) as connection:
            connection.sendall(self.upload_head(key, 5 * MIB) + FILE_HEAD + b"x" * MIB)

            top, body = read_answer(connection)

            assert top.startswith(b"HTTP/1.1 408 ")
            assert b"connection: close" in top.lower()
            assert body == b'{"errors":[{"message":"The body did not arrive, or arrived too slowly."}]}'
            assert spool_files() == []

    def test_no_room_on_the_disk(self, client, clip, spool_files):
        """A limit on file sizes fails a write as a full disk does."""
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 * MIB, hard))
        try:
            response = client.post("/v1/upscale", files={"file": b"x" * (8 * MIB)})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

        assert response.status_code == 503
        message = "There is no room for uploads just now. Try again later."
        assert response.json() == {"errors": [{"message": message}]}
        assert int(response.headers["Retry-After"]) > 0
        assert spool_files() == []
        with clip.open("rb") as file:
            assert client.post("/v1/upscale", files={"file": file}).status_code == 200


class TestAtOnce:
    def test_the_server_answers_others_during_an_upload(self, server, key, client, spool_files):
        with connect(server) as connection:
            connection.sendall(TestBrokenUploads().upload_head(key, 50 * MIB) + FILE_HEAD + b"x" * (2 * MIB))
            wait_until(lambda: spool_files() != [])

            assert client.get("/v1/engines").status_code == 200

    def test_many_uploads_at_the_same_time(self, server, key, clip, spool_files):
        answers: list[httpx.Response] = []

        def upload() -> None:
            with clip.open("rb") as file:
                answers.append(
                    httpx.post(
                        f"{server}/v1/upscale", files={"file": file}, headers={"X-API-Key": key}, timeout=120
                    )
                )

        threads = [threading.Thread(target=upload) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert [answer.status_code for answer in answers] == [200] * 8
        positions = sorted(answer.json()["render"]["queuePosition"] for answer in answers)
        assert positions == list(range(1, 9))
        assert spool_files() == []


@pytest.fixture
def server_process(database, settings, tmp_path: Path) -> Iterator[tuple[str, int]]:
    """The address and process id of a server in a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[3]),
        "REGEN_DATA_DIR": str(settings.data_dir),
        "REGEN_BROKER_URL": settings.resolved_broker_url,
    }
    command = [
        *(sys.executable, "-m", "uvicorn", "--factory", "app.main:create_app"),
        *("--port", str(port), "--log-level", "warning"),
    ]
    with subprocess.Popen(command, env=environment, cwd=tmp_path) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            wait_until(lambda: process.poll() is not None or answers(url))
            yield url, process.pid
        finally:
            process.terminate()


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz").status_code == 200
    except httpx.TransportError:
        return False


def resident_bytes(pid: int) -> int:
    shown = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True)
    return int(shown.stdout) * 1024


@pytest.mark.slow
def test_memory_stays_flat_during_a_large_upload(server_process, key, clip, spool_files):
    url, pid = server_process
    client = httpx.Client(base_url=url, headers={"X-API-Key": key}, timeout=120)
    with clip.open("rb") as file:
        # Once before measuring: what is loaded and allocated on first use is not what grows with a body.
        assert client.post("/v1/files", files={"file": file}).status_code == 200
    before = resident_bytes(pid)
    seen: list[int] = []

    def body() -> Iterator[bytes]:
        yield FILE_HEAD
        block = os.urandom(MIB)
        for number in range(300):
            if number % 25 == 24:
                seen.append(resident_bytes(pid))
            yield block
        yield b"\r\n--b--\r\n"

    response = client.post("/v1/files", content=body(), headers={"Content-Type": MULTIPART})

    assert response.status_code == 415, response.text
    assert max(*seen, resident_bytes(pid)) - before < 64 * MIB
    assert spool_files() == []
