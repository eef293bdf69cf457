"""A receiver of webhooks and results on loopback, which keeps what it was sent and answers as the test says."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jsonschema_rs
import standardwebhooks

DOCUMENT = json.loads((Path(__file__).parents[2] / "docs" / "openapi.json").read_text())


@dataclass(frozen=True)
class Received:
    """One request as it came."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def verified(self, secret: str) -> Any:
        """The event, when it was signed with the secret just now and is as docs/openapi.json says; raises
        WebhookVerificationError or ValidationError otherwise."""
        event = standardwebhooks.Webhook(secret).verify(self.body, dict(self.headers))
        described = DOCUMENT["webhooks"][event["type"]]["post"]["requestBody"]["content"]["application/json"]
        schema = {**described["schema"], "components": DOCUMENT["components"]}
        jsonschema_rs.validator_for(schema, validate_formats=True).validate(event)
        return event


Answer = Callable[[Received], int | tuple[int, dict[str, str]] | tuple[int, dict[str, str], bytes]]


class Receiver:
    """`answer` gives the status of each answer, headers and body, and may take its time. 204 unless it is set."""

    def __init__(self, host: str) -> None:
        self.received: list[Received] = []
        self.answer: Answer = lambda _received: 204
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                received = Received(self.path, headers, body)
                receiver.received.append(received)
                answer = receiver.answer(received)
                status, more, said = (*answer, b"")[:3] if isinstance(answer, tuple) else (answer, {}, b"")
                self.send_response(status)
                for name, value in more.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            do_PUT = do_POST  # noqa: N815  (the library's names)

            def do_GET(self) -> None:
                receiver.received.append(Received(self.path, dict(self.headers), b""))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer((host, 0), Handler)
        self.server.daemon_threads = True
        self.server.block_on_close = False
        self.url = f"http://{host}:{self.server.server_port}/hook"

    @property
    def ids(self) -> list[str]:
        return [received.id for received in self.received]


@contextmanager
def receiving(host: str = "127.0.0.1") -> Iterator[Receiver]:
    """A receiver that listens."""
    receiver = Receiver(host)
    thread = threading.Thread(target=receiver.server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.server.shutdown()
        receiver.server.server_close()
        thread.join(20)
