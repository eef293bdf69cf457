"""A relay on loopback in front of a server: it speaks TLS, or spoils what passes through it."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PIECE_BYTES = 64 * 1024

Spoil = Callable[[bytes], bytes]


class Relay:
    """What is set on it holds for connections from then on. `passed_down` counts the bytes that came back,
    `accepted` the connections."""

    def __init__(self, target_port: int, *, certificate: Path | None = None, key: Path | None = None) -> None:
        self.answers: list[bytes] = []
        """Given to the next connections' first requests, one each, in place of the server's."""
        self.up: Spoil = _unspoilt
        """What becomes of bytes on their way to the server. Raising OSError breaks the connection."""
        self.down: Spoil = _unspoilt
        self.passed_down = 0
        self.accepted = 0
        self._flows = threading.Event()
        self._flows.set()
        self._is_cut = False
        self._open: set[socket.socket] = set()
        self._target_port = target_port
        self._context: ssl.SSLContext | None = None
        if certificate is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(certificate, key)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def pause(self) -> None:
        """Hold everything back, on old connections and new ones, until `resume`."""
        self._flows.clear()

    def resume(self) -> None:
        self._flows.set()

    def cut(self) -> None:
        """Break every connection, and each new one, until `restore`."""
        self._is_cut = True
        for end in list(self._open):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def restore(self) -> None:
        self._is_cut = False

    def close(self) -> None:
        self.cut()
        self.resume()
        # Wakes the thread that accepts, which closing alone does not.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.callback(client.close)
            if self._is_cut:
                return
            if self._context is not None:
                client = stack.enter_context(self._context.wrap_socket(client, server_side=True))
            if self.answers:
                answer = self.answers.pop(0)
                _read_request(client)
                client.sendall(answer)
                return
            server = stack.enter_context(socket.create_connection(("127.0.0.1", self._target_port)))
            for end in (client, server):
                self._open.add(end)
                stack.callback(self._open.discard, end)
            back = threading.Thread(target=self._pass_on, args=(server, client, False), daemon=True)
            back.start()
            self._pass_on(client, server, True)
            back.join()

    def _pass_on(self, source: socket.socket, destination: socket.socket, is_up: bool) -> None:
        try:
            while piece := source.recv(PIECE_BYTES):
                self._flows.wait()
                piece = self.up(piece) if is_up else self.down(piece)
                destination.sendall(piece)
                if not is_up:
                    self.passed_down += len(piece)
        except OSError:
            pass
        finally:
            for end in (source, destination):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)


@contextmanager
def relay_to(port: int, *, certificate: Path | None = None, key: Path | None = None) -> Iterator[Relay]:
    relay = Relay(port, certificate=certificate, key=key)
    try:
        yield relay
    finally:
        relay.close()


class Cut:
    """Breaks the connection that carries the byte after `after_bytes`, counted over all of them; before that, calls
    `then`. What comes later passes."""

    def __init__(self, after_bytes: int, then: Callable[[], object] = lambda: None) -> None:
        self._left = after_bytes
        self._then = then
        self._lock = threading.Lock()
        self.was_made = False

    def __call__(self, piece: bytes) -> bytes:
        with self._lock:
            self._left -= len(piece)
            if self._left >= 0 or self.was_made:
                return piece
            self.was_made = True
        self._then()
        raise ConnectionResetError


def http_answer(status: str, *, code: str, headers: str = "", extra: str = "") -> bytes:
    """An S3 server's error, whole."""
    body = f"<Error><Code>{code}</Code><Message>m</Message>{extra}</Error>"
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n{headers}"
    return f"{head}Connection: close\r\n\r\n{body}".encode()


def _unspoilt(piece: bytes) -> bytes:
    return piece


def _read_request(client: socket.socket) -> None:
    received = b""
    while b"\r\n\r\n" not in received:
        piece = client.recv(PIECE_BYTES)
        if not piece:
            return
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    headers = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:])
    # Who expects "100 Continue" first sends no body after another answer.
    left = 0 if b"expect" in headers else int(headers.get(b"content-length", b"0")) - len(body)
    while left > 0:
        left -= len(client.recv(PIECE_BYTES)) or left
