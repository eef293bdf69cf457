"""Clients that are silent, slow, many or late, against the real server with a small application and short times."""

import asyncio
import contextlib
import errno
import http.client
import itertools
import json
import os
import re
import resource
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import h11
import httpx
import pytest
import structlog
from fastapi import FastAPI, Request
from starlette.responses import StreamingResponse

from app.http import uvicorn_protocol
from app.http.body_on_demand import EVENTS_PER_TURN, BodyOnDemand
from app.http.connections import ConnectionLimits, Connections
from app.http.errors import add_error_handlers
from app.http.turns import LoopTurn
from app.http.uvicorn_protocol import HttpProtocol
from app.platform.settings import Settings
from app.serving.acceptor import Acceptor
from app.serving.open_files import allow_open_files
from tests.servers.process import wait_until
from tests.servers.relay import relay_to
from tests.servers.serving import serving

LIMITS = ConnectionLimits.from_settings(Settings())
GET = b"GET /ping HTTP/1.1\r\nHost: regen.test\r\n\r\n"


@pytest.fixture
def left() -> list[bool]:
    """An entry for each endless answer that has ended."""
    return []


@pytest.fixture
def app(left: list[bool]) -> FastAPI:
    app = FastAPI()
    add_error_handlers(app)

    @app.get("/ping")
    async def ping(request: Request) -> str:
        return str(request.url)

    @app.post("/size")
    async def size(request: Request) -> int:
        return len(await request.body())

    class Endless(StreamingResponse):
        async def __call__(self, *arguments: Any) -> None:
            try:
                await super().__call__(*arguments)
            finally:
                left.append(True)

    @app.get("/endless")
    async def endless() -> Endless:
        return Endless(itertools.repeat(bytes(65536)))

    return app


@contextlib.contextmanager
def connection(url: str, *sent: bytes) -> Iterator[socket.socket]:
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=30) as client:
        for piece in sent:
            client.sendall(piece)
        yield client


def answer_of(client: socket.socket) -> bytes:
    """One answer, which has a Content-Length."""
    received = b""
    while True:
        piece = client.recv(65536)
        assert piece, received
        received += piece
        head, end, body = received.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head.lower())
        if end and length and len(body) == int(length[1]):
            return received


def all_of(client: socket.socket) -> bytes:
    """What comes until the server closes."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := client.recv(65536):
            received += piece
    return received


def error_of(answer: bytes) -> tuple[bytes, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    assert b"x-request-id: " in head.lower()
    return head.split(b"\r\n")[0], json.loads(body)["errors"][0]["message"]


class TestKeepAlive:
    # Thirty times faster than by default: 150 s are 5 s.
    SCALE = 30

    def test_sessions_that_poll_lose_nothing(self, app):
        """Through a relay with latency, at what are 4.9, 5, 15 and 30 s by default."""
        lost: list[Exception] = []
        made = 0

        def poll(port: int, pause_seconds: float) -> None:
            nonlocal made
            session = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            for _ in range(4):
                try:
                    session.request("GET", "/ping")
                    session.getresponse().read()
                    made += 1
                except Exception as error:
                    lost.append(error)
                time.sleep(pause_seconds / self.SCALE)
            session.close()

        limits = replace(LIMITS, keep_alive_seconds=Settings().keep_alive_seconds / self.SCALE)
        with serving(app, limits=limits) as url, relay_to(urlsplit(url).port or 0) as relay:

            def delayed(piece: bytes) -> bytes:
                time.sleep(0.01)
                return piece

            relay.up = relay.down = delayed
            threads = [threading.Thread(target=poll, args=(relay.port, pause)) for pause in (4.9, 5, 15, 30)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        assert (lost, made) == ([], 16)

    def test_an_idle_connection_ends_in_the_end(self, app):
        with (
            serving(app, limits=replace(LIMITS, keep_alive_seconds=0.2)) as url,
            connection(url, GET) as client,
        ):
            assert all_of(client).startswith(b"HTTP/1.1 200 ")

    def test_idle_and_silent_connections_do_not_hold_up_the_stop(self, app):
        with contextlib.ExitStack() as stack:
            with serving(app) as url:
                for sent in (GET, b"", b"GET /pi"):
                    client = stack.enter_context(connection(url, sent))
                    if sent == GET:
                        answer_of(client)
                began = time.monotonic()
            assert time.monotonic() - began < 5


class TestRequestHeads:
    @pytest.mark.parametrize("begun", [b"", GET], ids=["new", "kept alive"])
    def test_one_that_does_not_come_to_its_end(self, app, begun):
        with (
            serving(app, limits=replace(LIMITS, head_seconds=0.3)) as url,
            connection(url, begun) as client,
        ):
            if begun:
                answer_of(client)
            client.sendall(b"GET /ping HTTP/1.1\r\nX-Slow: ")
            with contextlib.suppress(OSError):
                for _ in range(100):  # each byte in time, all of them not
                    client.sendall(b"x")
                    time.sleep(0.02)

            status, message = error_of(all_of(client))

        assert status == b"HTTP/1.1 408 Request Timeout"
        assert message == "The request's head did not arrive within 0.3 seconds."

    def test_a_silent_connection_is_closed_without_a_word(self, app):
        with (
            serving(app, limits=replace(LIMITS, head_seconds=0.2)) as url,
            connection(url) as client,
        ):
            assert all_of(client) == b""

    def test_an_absolute_target(self, app):
        with serving(app) as url, connection(url) as client:
            for target, seen in (
                ("http://other.test/ping?a=1", "http://other.test/ping?a=1"),
                ("HTTPS://user@other.test:81/%70ing", "http://other.test:81/ping"),
                ("http://[::1]:81/ping?a=%20&b", "http://[::1]:81/ping?a=%20&b"),
            ):
                client.sendall(f"GET {target} HTTP/1.1\r\nHost: regen.test\r\n\r\n".encode())
                answer = answer_of(client)
                assert answer.startswith(b"HTTP/1.1 200 "), answer
                assert answer.endswith(f'"{seen}"'.encode())


class TestFloods:
    def test_each_peer_has_one_connection_set_up_at_a_time(self):
        """However many of another wait; and no more of them wait than it may have connections."""

        async def firsts() -> list[tuple[int, ...]]:
            limits = replace(LIMITS, most_per_peer=3)
            with socket.create_server(("127.0.0.1", 0)) as listener:
                acceptor = Acceptor(listener, asyncio.Protocol, Connections(limits))
                sockets = [socket.socket() for _ in range(6)]
                for number, client in enumerate(sockets):
                    acceptor._line_up(client, ("192.0.2.2" if number else "192.0.2.1", 1))
                taken = [acceptor._first_of_each() for _ in range(4)]
                closed = [number for number, client in enumerate(sockets) if client.fileno() < 0]
                acceptor.close()
                await acceptor.wait_closed()
            for client in sockets:
                client.close()
            return [tuple(map(sockets.index, some)) for some in taken] + [tuple(closed)]

        assert asyncio.run(firsts()) == [(0, 3), (4,), (5,), (), (1, 2)]

    def test_a_head_in_many_pieces_is_read_in_few(self, app, monkeypatch):
        pieces: list[bytes] = []
        data_received = HttpProtocol.data_received

        def noting(protocol: HttpProtocol, data: bytes) -> None:
            pieces.append(data)
            data_received(protocol, data)

        monkeypatch.setattr(HttpProtocol, "data_received", noting)
        with serving(app) as url, connection(url) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for number in range(len(GET)):
                client.sendall(GET[number : number + 1])
                time.sleep(0.002)
            assert answer_of(client).startswith(b"HTTP/1.1 200 ")
            client.sendall(GET)
            assert answer_of(client).startswith(b"HTTP/1.1 200 ")
        assert b"".join(pieces) == 2 * GET
        assert len(pieces) <= 7

    def test_bodies_are_read_in_turns(self, app, monkeypatch):
        """A peer's other bodies wait while two of its parts are read; each part is in a turn."""
        began: list[str] = []
        begin = LoopTurn.begin

        async def noting(turn: LoopTurn) -> bool:
            granted = await begin(turn)
            began.append(turn._caller)
            return granted

        monkeypatch.setattr(LoopTurn, "begin", noting)
        head = b"POST /size HTTP/1.1\r\nHost: regen.test\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunks = 4 * EVENTS_PER_TURN
        with serving(app) as url, connection(url, head, b"80\r\n%b\r\n" % bytes(128) * chunks) as client:
            client.sendall(b"0\r\n\r\n")
            assert answer_of(client).endswith(b"%d" % (128 * chunks))
        assert set(began) == {"127.0.0.1"}
        assert len(began) > 4


class TestChunks:
    HEAD = b"POST /size HTTP/1.1\r\nHost: regen.test\r\nTransfer-Encoding: chunked\r\n\r\n"

    @pytest.mark.parametrize(
        ("size_bytes", "count", "is_taken"), [(188, 3000, True), (1, 150, True), (1, 3000, False)]
    )
    def test_a_body_of_tiny_chunks_is_refused(self, app, monkeypatch, size_bytes, count, is_taken):
        """A chunk of one byte takes as long to read as a large one."""
        monkeypatch.setattr(uvicorn_protocol, "REFUSED_SECONDS", 0.1)
        chunks = b"%x\r\n%b\r\n" % (size_bytes, bytes(size_bytes)) * count
        with serving(app) as url, connection(url, self.HEAD, chunks, b"0\r\n\r\n") as client:
            if is_taken:
                assert answer_of(client).endswith(b"%d" % (size_bytes * count))
            else:
                status, message = error_of(all_of(client))
                assert status == b"HTTP/1.1 400 Bad Request"
                assert "chunks" in message

    @pytest.mark.parametrize("length", [b"5", b"0", b"100000"])
    def test_a_length_beside_chunks_ends_the_connection(self, app, length):
        """A proxy that goes by the length would take the rest for part of the body, or wait for more."""
        head = self.HEAD.replace(b"\r\n\r\n", b"\r\nContent-Length: %b\r\n\r\n" % length)
        with serving(app) as url, connection(url, head + b"0\r\n\r\n" + GET) as client:
            answers = all_of(client)
        assert answers.count(b"\r\n\r\n") == 1
        assert error_of(answers)[0] == b"HTTP/1.1 400 Bad Request"

    def test_a_client_that_is_refused_for_tiny_chunks_is_no_longer_read(self, app):
        """Its connection is not reset, so that it sees the answer, and gives way to others as an idle one does."""
        tiny = b"1\r\nx\r\n" * 3000
        limits = replace(LIMITS, most=2, most_per_peer=2)
        with serving(app, limits=limits) as url, connection(url, self.HEAD, tiny) as client:
            status, message = error_of(answer_of(client))
            assert status == b"HTTP/1.1 400 Bad Request"
            assert "chunks" in message
            client.sendall(tiny)
            client.settimeout(0.2)
            with pytest.raises(TimeoutError):
                client.recv(1)
            with connection(url, GET) as first, connection(url, GET) as second:
                assert answer_of(first).startswith(b"HTTP/1.1 200 ")
                assert answer_of(second).startswith(b"HTTP/1.1 200 ")
                client.settimeout(10)
                assert all_of(client) == b""

    @pytest.mark.parametrize("chunk", [b"80\r\n%b\r\n" % bytes(128), b"1000\r\n%b\r\n" % bytes(4096)])
    def test_the_rest_of_a_refused_body_is_not_parsed(self, chunk):
        conn = BodyOnDemand()
        conn.receive_data(self.HEAD + chunk)
        assert isinstance(conn.next_event(), h11.Request)
        conn.skip_body()
        received = b""
        for piece in (b"", chunk * 500, b"\r\n0\r\n", b"\r\n"):
            conn.receive_data(piece) if piece else None
            conn.want_body()
            events = list(iter(conn.next_event, h11.NEED_DATA))
            received += b"".join(event.data for event in events if isinstance(event, h11.Data))
        assert received == chunk * 501 + b"\r\n0\r\n"
        assert isinstance(events[-1], h11.EndOfMessage)

    def test_the_rest_of_a_refused_body_in_tiny_chunks_ends_the_reading(self):
        conn = BodyOnDemand()
        conn.receive_data(self.HEAD + b"1\r\nx\r\n" * 300)
        assert isinstance(conn.next_event(), h11.Request)
        conn.skip_body()
        conn.want_body()
        with pytest.raises(h11.RemoteProtocolError, match="tiny chunks"):
            conn.next_event()

    def test_each_request_has_chunks_of_its_own(self, app):
        body = b"1\r\nx\r\n" * 150 + b"0\r\n\r\n"
        with serving(app) as url, connection(url) as client:
            for _ in range(3):
                client.sendall(self.HEAD + body)
                assert answer_of(client).endswith(b"150")

    def test_a_body_that_is_not_asked_for_is_not_parsed(self):
        """A request that is refused from its head costs the same with any body."""
        conn = BodyOnDemand()
        conn.receive_data(self.HEAD + b"1\r\nx\r\n" * 3 * EVENTS_PER_TURN)
        assert isinstance(conn.next_event(), h11.Request)
        assert conn.next_event() is h11.NEED_DATA
        for _ in range(3):
            conn.want_body()
            turn = list(iter(conn.next_event, h11.NEED_DATA))
            assert [type(event) for event in turn] == [h11.Data] * EVENTS_PER_TURN

    def test_bodies_that_nothing_reads_are_dropped(self, app):
        """The next request on the connection is answered, whether it comes with the body or later."""
        bodies = (
            (b"Content-Length: 300000", bytes(300_000)),
            (b"Transfer-Encoding: chunked", b"c8\r\n%b\r\n" % bytes(200) * 1000 + b"0\r\n\r\n"),
        )
        with serving(app) as url:
            for header, body in bodies:
                head = GET.removesuffix(b"\r\n") + header + b"\r\n\r\n"
                with connection(url) as client:
                    for sent in (head + body, head, body + GET):
                        client.sendall(sent)
                        assert answer_of(client).startswith(b"HTTP/1.1 200 ")
                    client.sendall(head + body + GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
                    assert all_of(client).count(b"HTTP/1.1 200 ") == 2


class TestSlowClients:
    def test_a_body_that_comes_too_slowly(self, app):
        limits = replace(LIMITS, patience_seconds=0.3, bytes_per_second=1000)
        head = b"POST /size HTTP/1.1\r\nHost: regen.test\r\nContent-Length: 1000\r\n\r\n"
        with serving(app, limits=limits) as url, connection(url, head) as client:
            with contextlib.suppress(OSError):
                for _ in range(40):
                    client.sendall(b"x")
                    time.sleep(0.02)

            answer = answer_of(client)

        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"The body did not arrive, or arrived too slowly." in answer

    def test_a_body_that_comes_at_the_least_rate(self, app):
        limits = replace(LIMITS, patience_seconds=0.4, bytes_per_second=200)
        head = b"POST /size HTTP/1.1\r\nHost: regen.test\r\nContent-Length: 400\r\n\r\n"
        with serving(app, limits=limits) as url, connection(url, head) as client:
            for _ in range(10):
                client.sendall(b"x" * 40)
                time.sleep(0.1)

            answer = answer_of(client)

        assert answer.startswith(b"HTTP/1.1 200 ")

    def test_an_answer_that_is_not_taken(self, app, left):
        limits = replace(LIMITS, patience_seconds=0.3)
        ask = b"GET /endless HTTP/1.1\r\nHost: regen.test\r\n\r\n"
        with serving(app, limits=limits) as url, connection(url, ask) as client:
            wait_until(lambda: left)
            assert not all_of(client).endswith(b"0\r\n\r\n")

    def test_an_answer_that_is_taken_at_the_least_rate(self, app, left):
        limits = replace(LIMITS, patience_seconds=0.5, bytes_per_second=50_000)
        ask = b"GET /endless HTTP/1.1\r\nHost: regen.test\r\n\r\n"
        with serving(app, limits=limits) as url, connection(url) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            client.sendall(ask)
            for _ in range(30):
                assert client.recv(65536)
                time.sleep(0.05)
            assert left == []


class TestMany:
    def test_silent_connections_make_room_for_who_asks(self, app):
        limits = replace(LIMITS, most=6, most_per_peer=6)
        with serving(app, limits=limits) as url, contextlib.ExitStack() as stack:
            silent = [stack.enter_context(connection(url)) for _ in range(30)]

            answers = [httpx.get(f"{url}/ping", timeout=5).status_code for _ in range(5)]

            assert answers == [200] * 5
            for client in silent[:20]:
                assert all_of(client) == b""

    def test_more_than_there_may_be_wait_while_all_are_busy(self, app, left):
        limits = replace(LIMITS, most=2, most_per_peer=9)
        ask = b"GET /endless HTTP/1.1\r\nHost: regen.test\r\n\r\n"
        with serving(app, limits=limits) as url, contextlib.ExitStack() as stack:
            busy = []
            for _ in range(3):
                busy.append(stack.enter_context(connection(url, ask)))
                assert busy[-1].recv(10)
            with connection(url, GET) as waiting:
                waiting.settimeout(0.3)
                with pytest.raises(TimeoutError):
                    waiting.recv(10)
                busy[0].close()
                waiting.settimeout(30)
                assert waiting.recv(10).startswith(b"HTTP/1.1 ")


def test_without_open_files_accepting_pauses_and_says_so_once(monkeypatch):
    async def scenario() -> list[str]:
        loop, tries = asyncio.get_running_loop(), 0

        async def no_more_files(_listener: socket.socket) -> None:
            nonlocal tries
            tries += 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        monkeypatch.setattr(loop, "sock_accept", no_more_files)
        monkeypatch.setattr("app.serving.acceptor.PAUSE_SECONDS", 0.01)
        monkeypatch.setattr("app.serving.acceptor.log", structlog.get_logger())
        with structlog.testing.capture_logs() as logs:
            acceptor = Acceptor(socket.create_server(("127.0.0.1", 0)), asyncio.Protocol, Connections(LIMITS))
            await asyncio.sleep(0.1)
            acceptor.close()
            await acceptor.wait_closed()
        assert 2 < tries < 20
        return [entry["event"] for entry in logs]

    assert asyncio.run(scenario()) == ["accept_failed"]


def test_the_soft_limit_of_open_files_is_raised_and_never_lowered():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (500, hard))
        assert allow_open_files(400) == 500
        assert allow_open_files(600) == 600 == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
