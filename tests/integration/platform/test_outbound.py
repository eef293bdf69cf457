"""Requests to addresses that users name, to real servers on loopback."""

import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network

import pytest

from app.platform.errors import AddressRefused, OutboundError, OutboundTimeout
from app.platform.outbound import check_url, followed, guarded_client, outbound_errors

LOOPBACK = (ip_network("127.0.0.0/8"),)


class Handler(BaseHTTPRequestHandler):
    """`/to?<url>` redirects there, `/slow` never ends, all else answers with what it was asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path.startswith("/to?"):
            self.send_response(302)
            self.send_header("Location", self.path.partition("?")[2])
            self.send_header("Set-Cookie", "a=b")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = f"{self.path} {self.headers['Host']} {self.headers['Cookie']}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(10**9 if self.path == "/slow" else len(body)))
        self.end_headers()
        while self.path == "/slow":
            try:
                self.wfile.write(b"x")
                time.sleep(0.05)
            except OSError:
                return
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, *, certificate: tuple[str, str] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True)

    def handle_error(self, *_arguments: object) -> None:
        pass  # clients that leave in the middle are what is tested


@contextmanager
def serving(server: Server) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serving(Server()) as port:
        yield port


def get(url: str, **options) -> tuple[int, str]:
    make = client_of(**options)
    with followed(url, make_client=make) as answer:
        return answer.status_code, answer.read().decode()


def client_of(*, allowed=LOOPBACK, total_seconds: float = 20.0, **options) -> Callable:
    return lambda: guarded_client(allowed_networks=allowed, total_seconds=total_seconds, **options)


class TestWhereItGoes:
    def test_loopback_when_the_operator_lists_it(self, port):
        assert get(f"http://127.0.0.1:{port}/a?b=c") == (200, f"/a?b=c 127.0.0.1:{port} None")

    @pytest.mark.parametrize(
        "host",
        ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "[::ffff:127.0.0.1]", "[::1]", "0.0.0.0"],
    )
    def test_never_otherwise(self, port, host):
        with pytest.raises(AddressRefused):
            get(f"http://{host}:{port}/", allowed=())

    def test_a_name_without_an_address_is_refused_in_the_same_words(self, port):
        with pytest.raises(AddressRefused) as unknown:
            get("http://nobody.invalid/")
        with pytest.raises(AddressRefused) as internal:
            get(f"http://127.0.0.1:{port}/", allowed=())

        assert str(unknown.value) == str(internal.value)
        assert "127.0.0.1" in internal.value.detail

    def test_the_address_that_was_checked_is_the_one_connected_to(self, port):
        """A name that is permitted when it is asked first and internal ever after; nobody else knows the name."""
        only_the_first = (ip_network("127.0.0.1/32"),)
        answers = iter([["127.0.0.1"], ["127.0.0.2"]])
        asked: list[str] = []

        def resolve(host: str, _port: int) -> list[str]:
            asked.append(host)
            return next(answers)

        url = f"http://rebinding.example:{port}/"
        assert get(url, allowed=only_the_first, resolve=resolve)[0] == 200
        assert asked == ["rebinding.example"]
        with pytest.raises(AddressRefused):
            get(url, allowed=only_the_first, resolve=resolve)

    def test_forbidden_addresses_of_a_name_are_passed_over(self, port):
        def resolve(_host: str, _port: int) -> list[str]:
            return ["10.0.0.1", "127.0.0.2", "127.0.0.1"]

        status, body = get(f"http://several.example:{port}/", resolve=resolve)

        assert (status, body) == (200, f"/ several.example:{port} None")

    def test_no_proxy_of_the_environment(self, port, monkeypatch):
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:1")

        assert get(f"http://127.0.0.1:{port}/")[0] == 200


class TestUrls:
    @pytest.mark.parametrize(
        "url",
        [
            "ftp://example.com/a", "file:///etc/passwd", "gopher://example.com", "//example.com/a", "/a", "", "x",
            "http://", "http:///a", "http://user@example.com/", "http://a:b@example.com/", "http://example.com:0/",
            "http://example.com:99999/", "http://[::1/", "http://exa mple.com/", "unix:///run/docker.sock",
            "https://example.com/" + "x" * 2048,
        ],
    )  # fmt: skip
    def test_refused(self, url):
        with pytest.raises(AddressRefused):
            check_url(url)

    @pytest.mark.parametrize(
        "url", ["http://example.com", "HTTPS://example.com:8443/a?b", "http://ü.example/ä"]
    )
    def test_fine(self, url):
        check_url(url)


class TestRedirects:
    def test_they_are_followed_without_cookies(self, port):
        url = f"http://127.0.0.1:{port}/to?/to?http://127.0.0.1:{port}/end"

        assert get(url) == (200, f"/end 127.0.0.1:{port} None")

    @pytest.mark.parametrize(
        "target", ["http://127.0.0.2:{port}/", "file:///etc/passwd", "http://a:b@127.0.0.1:{port}/"]
    )
    def test_each_is_checked(self, port, target):
        with pytest.raises(AddressRefused):
            get(
                f"http://127.0.0.1:{port}/to?{target.format(port=port)}",
                allowed=(ip_network("127.0.0.1/32"),),
            )

    def test_not_for_ever(self, port):
        url = f"http://127.0.0.1:{port}/" + "to?/" * 6 + "end"

        with pytest.raises(OutboundError, match="more than 5 times"):
            get(url)

    def test_the_client_alone_follows_none(self, port):
        with outbound_errors(), client_of()() as client:
            assert client.get(f"http://127.0.0.1:{port}/to?/end").status_code == 302


class TestTime:
    def test_an_answer_that_trickles_ends_with_the_whole_time(self, port):
        with pytest.raises(OutboundTimeout):
            get(f"http://127.0.0.1:{port}/slow", total_seconds=1.0)

    def test_silence(self):
        with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(OutboundTimeout):
            get(f"http://127.0.0.1:{silent.getsockname()[1]}/", read_seconds=0.3)

    @pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"])
    def test_silence_ends_when_it_is_given_up(self, begun):
        given_up, over = threading.Event(), threading.Event()
        with socket.create_server(("127.0.0.1", 0)) as server:

            def answer() -> None:
                connection, _ = server.accept()
                with connection:
                    connection.recv(1000)
                    connection.sendall(begun)
                    given_up.set()
                    over.wait(60)

            threading.Thread(target=answer, daemon=True).start()
            started = time.monotonic()
            url, make = f"http://127.0.0.1:{server.getsockname()[1]}/", client_of(cancelled=given_up.is_set)
            with pytest.raises(OutboundError), outbound_errors(), make() as client:
                client.get(url)
            assert time.monotonic() - started < 5
            over.set()

    def test_a_resolver_that_hangs(self, port):
        release = threading.Event()

        def resolve(_host: str, _port: int) -> list[str]:
            release.wait(60)
            return []

        try:
            with pytest.raises(OutboundTimeout):
                get(f"http://slow.example:{port}/", total_seconds=0.5, resolve=resolve)
        finally:
            release.set()

    def test_what_is_no_http(self, port):
        with socket.create_server(("127.0.0.1", 0)) as server:

            def answer() -> None:
                connection, _ = server.accept()
                with connection:
                    connection.recv(1000)
                    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")

            threading.Thread(target=answer, daemon=True).start()
            with pytest.raises(OutboundError, match="invalid HTTP"):
                get(f"http://127.0.0.1:{server.getsockname()[1]}/")


class TestEffort:
    """What takes long to read, and is short to send."""

    CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

    @contextmanager
    def answering(self, *pieces: bytes) -> Iterator[str]:
        """The URL of a server that answers with these, the last one again and again until the client leaves."""
        with socket.create_server(("127.0.0.1", 0)) as server:

            def answer() -> None:
                connection, _ = server.accept()
                with connection, suppress(OSError):
                    connection.recv(1000)
                    for piece in pieces:
                        connection.sendall(piece)
                    while pieces[-1]:
                        connection.sendall(pieces[-1])

            threading.Thread(target=answer, daemon=True).start()
            yield f"http://127.0.0.1:{server.getsockname()[1]}/"

    @pytest.mark.parametrize(
        "pieces",
        [(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100,), (CHUNKED, b"1\r\nx\r\n" * 100)],
        ids=["heads without end", "chunks of one byte"],
    )
    def test_the_reading_is_given_up(self, pieces):
        began = time.thread_time()
        with self.answering(*pieces) as url, pytest.raises(OutboundError, match="invalid HTTP"):
            get(url, total_seconds=60.0)
        assert time.thread_time() - began < 5

    def test_what_other_servers_send_is_read(self):
        """Hints before the answer, and chunks of the size of a packet of MPEG-TS."""
        hints, packets = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 20, 3000
        body = b"bc\r\n%b\r\n" % (b"x" * 188) * packets + b"0\r\n\r\n"
        with self.answering(hints, self.CHUNKED, body, b"") as url:
            assert get(url) == (200, "x" * 188 * packets)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> tuple[str, str]:
    directory = tmp_path_factory.mktemp("tls")
    paths = str(directory / "certificate.pem"), str(directory / "key.pem")
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
            ),
            *("-subj", "/CN=video.example", "-addext", "subjectAltName=DNS:video.example", "-days", "2"),
            *("-out", paths[0], "-keyout", paths[1]),
        ],
        check=True,
        capture_output=True,
    )
    return paths


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
class TestTls:
    @pytest.fixture
    def https_port(self, certificate) -> Iterator[int]:
        with ExitStack() as stack:
            yield stack.enter_context(serving(Server(certificate=certificate)))

    def test_the_name_is_proven_though_the_address_is_pinned(self, https_port, certificate):
        options = {
            "resolve": lambda _host, _port: ["127.0.0.1"],
            "tls": ssl.create_default_context(cafile=certificate[0]),
        }

        assert get(f"https://video.example:{https_port}/a", **options)[0] == 200
        with pytest.raises(OutboundError, match="certificate"):
            get(f"https://other.example:{https_port}/a", **options)
        with pytest.raises(AddressRefused, match="from https to http"):
            get(f"https://video.example:{https_port}/to?http://video.example/", **options)

    def test_a_certificate_that_nobody_vouches_for(self, https_port):
        with pytest.raises(OutboundError, match="certificate"):
            get(f"https://video.example:{https_port}/a", resolve=lambda _host, _port: ["127.0.0.1"])
