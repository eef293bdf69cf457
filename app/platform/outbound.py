"""HTTP to user-supplied URLs, only to public addresses and to the networks that the operator allows.

The client resolves a name, checks its addresses, and connects to the checked address itself, so a DNS answer that
changes in between has no effect. TLS verifies the name as usual.
"""

import queue
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from ipaddress import ip_address
from typing import Any

import httpcore
import httpx

from app.platform.errors import AddressRefused, OutboundError, OutboundTimeout, causes
from app.platform.public_addresses import Address, Network, is_permitted

CONNECT_SECONDS = 10.0
# The longest pause between two reads.
READ_SECONDS = 30.0
CANCEL_POLL_SECONDS = 0.5
MOST_REDIRECTS = 5
MOST_URL_CHARACTERS = 2048
USER_AGENT = "regen-server"

REFUSED = (
    "This server may not connect to that address, or the address does not exist. Its operator can allow non-public "
    "networks with REGEN_OUTBOUND_ALLOWED_NETWORKS."
)
NO_HOST = "The URL does not name a host."
TOO_SLOW = "The other server took too long."
GIVEN_UP = "the exchange was given up"
WRITE_BYTES = 16 * 1024
# A head, with those that may come before it (status 1xx): each costs time to parse, and there might be no end of them.
MOST_HEAD_BYTES = 100 * 1024
# Beyond so many pieces of an answer they may not have fewer bytes on average: a chunk of one byte takes as long to
# parse as a large one.
MOST_TINY_PIECES, TINY_PIECE_BYTES = 1000, 128

# A DNS name, or an address without a zone.
_HOST = re.compile(rb"[A-Za-z0-9._:-]+")

Resolve = Callable[[str, int], Iterable[str]]


def guarded_client(
    *,
    allowed_networks: Collection[Network],
    total_seconds: float,
    read_seconds: float = READ_SECONDS,
    cancelled: Callable[[], bool] = lambda: False,
    resolve: Resolve | None = None,
    tls: ssl.SSLContext | None = None,
) -> httpx.Client:
    """A client for one exchange with a user-supplied URL, which must have passed `check_url`.

    An answer in tiny chunks, or with too many heads before it, counts as invalid HTTP.
    All its traffic ends `total_seconds` from now, and a wait for the other server soon after `cancelled` returns True:
    nothing else interrupts a thread that reads. It follows no redirects (see `followed`), keeps neither cookies nor
    connections, and uses no proxy. Use it inside `with outbound_errors()`. `resolve` returns a host's addresses (by
    default the system's resolver), `tls` has the trusted authorities (by default the usual ones).
    """
    backend = _GuardedBackend(
        allowed_networks=allowed_networks,
        resolve=resolve or _resolve_host,
        deadline=time.monotonic() + total_seconds,
        cancelled=cancelled,
    )
    return httpx.Client(
        transport=_Transport(backend, tls=tls or _usual_authorities()),
        timeout=httpx.Timeout(read_seconds, connect=CONNECT_SECONDS),
        headers={"User-Agent": USER_AGENT},
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        follow_redirects=False,
        trust_env=False,
    )


def check_url(text: str, *, most_characters: int = MOST_URL_CHARACTERS) -> httpx.URL:
    """The parsed URL. Raises AddressRefused unless it is http or https with a host and without credentials.

    A host with an `xn--` label must be valid IDNA: httpx decodes it. Its addresses are checked at each connection.
    """
    if len(text) > most_characters:
        raise AddressRefused(f"The URL is longer than {most_characters} characters.")
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, UnicodeError) as error:
        raise AddressRefused("This is not a URL.", detail=str(error)) from error
    if url.scheme not in ("http", "https"):
        raise AddressRefused("The URL must begin with http:// or https://.")
    if not _HOST.fullmatch(url.raw_host) or (url.port is not None and not 0 < url.port < 65536):
        raise AddressRefused(NO_HOST)
    try:
        url.host  # noqa: B018 - decoded on access
    except UnicodeError as error:
        raise AddressRefused(NO_HOST, detail=str(error)) from error
    if url.userinfo:
        raise AddressRefused("The URL must not carry a user name or password.")
    return url


@contextmanager
def followed(
    text: str,
    *,
    make_client: Callable[[], httpx.Client],
    headers: dict[str, str] | None = None,
) -> Iterator[httpx.Response]:
    """GET the URL and follow its redirects, with a check of each; the last answer, of any status, before its body.

    Each hop has its own client from `make_client`. Raises AddressRefused, OutboundTimeout and OutboundError.
    """
    url = check_url(text)
    for _ in range(MOST_REDIRECTS + 1):
        with outbound_errors(), make_client() as client, client.stream("GET", url, headers=headers) as answer:
            if not answer.has_redirect_location:
                yield answer
                return
            target = check_url(_joined(url, answer.headers["Location"]))
        if url.scheme == "https" and target.scheme == "http":
            raise AddressRefused("The other server redirects from https to http.")
        url = target
    raise OutboundError(f"The other server redirects more than {MOST_REDIRECTS} times.")


@contextmanager
def outbound_errors() -> Iterator[None]:
    """Raises OutboundError or OutboundTimeout for httpx's errors, with sentences for the user who gave the URL."""
    try:
        yield
    except httpx.TimeoutException as error:
        raise OutboundTimeout(TOO_SLOW, detail=_detail(error)) from error
    except httpx.ConnectError as error:
        sentence = (
            "The TLS handshake with the other server failed: check its certificate."
            if _is_tls_error(error)
            else "The other server cannot be reached."
        )
        raise OutboundError(sentence, detail=_detail(error)) from error
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
        raise OutboundError(
            "The other server closed the connection early or sent invalid HTTP.", detail=_detail(error)
        ) from error


class _GuardedBackend(httpcore.NetworkBackend):
    def __init__(
        self,
        *,
        allowed_networks: Collection[Network],
        resolve: Resolve,
        deadline: float,
        cancelled: Callable[[], bool],
    ) -> None:
        self._allowed_networks = allowed_networks
        self._resolve = resolve
        self._deadline = deadline
        self._cancelled = cancelled
        self._system = httpcore.SyncBackend()
        self.head = _Head()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        addresses = self._permitted(host, port, timeout)
        failure: Exception | None = None
        for address in addresses:
            try:
                stream = self._system.connect_tcp(
                    str(address),
                    port,
                    timeout=_remaining(self._deadline, timeout),
                    local_address=local_address,
                    socket_options=socket_options,
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _BoundedStream(stream, self._deadline, self._cancelled, self.head)
        assert failure is not None
        raise failure

    def connect_unix_socket(self, path: str, *_options: Any, **_more: Any) -> httpcore.NetworkStream:
        raise AddressRefused(REFUSED, detail=f"a unix socket: {path}")

    def _permitted(self, host: str, port: int, timeout: float | None) -> list[Address]:
        """The host's permitted addresses. Raises AddressRefused with one sentence for every cause, which does not
        disclose which internal names exist."""
        found = list(
            dict.fromkeys(_within(lambda: self._resolve(host, port), _remaining(self._deadline, timeout)))
        )
        addresses = [ip_address(text) for text in found]
        permitted = [one for one in addresses if is_permitted(one, allowed_networks=self._allowed_networks)]
        if not permitted:
            raise AddressRefused(REFUSED, detail=f"{host} is at {', '.join(found) or 'no address'}")
        return permitted


class _Head:
    """How much was read of an answer whose head is not complete yet."""

    def __init__(self) -> None:
        self.is_complete = False
        self._read_bytes = 0

    def note(self, data: bytes) -> bytes:
        """The data. Raises RemoteProtocolError if more follows what is too much for a head."""
        if not self.is_complete and self._read_bytes > MOST_HEAD_BYTES:
            raise httpcore.RemoteProtocolError("the answer's head does not end")
        self._read_bytes += len(data)
        return data


class _BoundedStream(httpcore.NetworkStream):
    """A stream whose operations all end at the deadline, and once `cancelled` returns True."""

    def __init__(
        self, stream: httpcore.NetworkStream, deadline: float, cancelled: Callable[[], bool], head: _Head
    ) -> None:
        self._stream = stream
        self._deadline = deadline
        self._cancelled = cancelled
        self._head = head

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        ends_at = time.monotonic() + _remaining(self._deadline, timeout)
        while not self._cancelled():
            left = ends_at - time.monotonic()
            try:
                seconds = max(0.001, min(left, CANCEL_POLL_SECONDS))
                return self._head.note(self._stream.read(max_bytes, timeout=seconds))
            except httpcore.ReadTimeout:
                if left <= CANCEL_POLL_SECONDS:
                    raise
        raise httpcore.ReadError(GIVEN_UP)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        # In pieces: one call may last for ever while the other side takes a few bytes at a time.
        for start in range(0, len(buffer), WRITE_BYTES):
            if self._cancelled():
                raise httpcore.WriteError(GIVEN_UP)
            piece = buffer[start : start + WRITE_BYTES]
            self._stream.write(piece, timeout=_remaining(self._deadline, timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        inner = self._stream.start_tls(
            ssl_context, server_hostname=server_hostname, timeout=_remaining(self._deadline, timeout)
        )
        return _BoundedStream(inner, self._deadline, self._cancelled, self._head)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Transport(httpx.BaseTransport):
    """A transport with a network backend, which httpx's own does not accept. Each request makes a new connection."""

    def __init__(self, backend: _GuardedBackend, *, tls: ssl.SSLContext) -> None:
        self._head = backend.head
        self._pool = httpcore.ConnectionPool(
            ssl_context=tls, network_backend=backend, max_keepalive_connections=0, http1=True, http2=False
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.SyncByteStream)
        with _httpx_errors():
            answer = self._pool.handle_request(
                httpcore.Request(
                    method=request.method,
                    url=httpcore.URL(
                        scheme=request.url.raw_scheme,
                        host=request.url.raw_host,
                        port=request.url.port,
                        target=request.url.raw_path,
                    ),
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        self._head.is_complete = True
        return httpx.Response(
            status_code=answer.status,
            headers=answer.headers,
            stream=_AnswerStream(answer),
            extensions=answer.extensions,
        )

    def close(self) -> None:
        self._pool.close()


class _AnswerStream(httpx.SyncByteStream):
    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        with _httpx_errors():
            read_bytes = 0
            for number, piece in enumerate(self._answer.iter_stream(), start=1):
                read_bytes += len(piece)
                if number > MOST_TINY_PIECES and read_bytes < number * TINY_PIECE_BYTES:
                    raise httpcore.RemoteProtocolError("the answer comes in tiny chunks")
                yield piece

    def close(self) -> None:
        self._answer.close()


@contextmanager
def _httpx_errors() -> Iterator[None]:
    """Raises httpx's error of the same name for each of httpcore's."""
    try:
        yield
    except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError) as error:
        raise getattr(httpx, type(error).__name__, httpx.TransportError)(str(error)) from error


def _remaining(deadline: float, timeout: float | None) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("the time for the whole exchange is over")
    return left if timeout is None else min(left, timeout)


def _resolve_host(host: str, port: int) -> Iterable[str]:
    """The addresses in the system's order; empty for a name that does not exist."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [str(address[0]) for *_, address in found]


def _within(ask: Callable[[], Iterable[str]], seconds: float) -> list[str]:
    """The result of `ask`, which runs in its own thread because a resolver has no timeout."""
    answers: queue.SimpleQueue[list[str] | Exception] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put(list(ask()))
        except Exception as error:
            answers.put(error)

    threading.Thread(target=run, name="resolve", daemon=True).start()
    try:
        answer = answers.get(timeout=seconds)
    except queue.Empty:
        raise httpcore.ConnectTimeout("the name was not resolved in time") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _joined(url: httpx.URL, location: str) -> str:
    try:
        return str(url.join(location))
    except (httpx.InvalidURL, UnicodeError) as error:
        raise AddressRefused(
            "The other server redirects to something that is not a URL.", detail=str(error)
        ) from error


def _is_tls_error(error: BaseException) -> bool:
    return any(isinstance(cause, ssl.SSLError) for cause in causes(error))


def _detail(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


@lru_cache(maxsize=1)
def _usual_authorities() -> ssl.SSLContext:
    """Cached, because reading them takes longer than many requests."""
    return httpx.create_ssl_context(trust_env=False)
