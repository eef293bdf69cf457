"""The ready file, and the announcement that the server answers requests."""

import contextlib
import http.client
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from app.platform.errors import ConfigurationError, RegenError
from app.serving.signals import StopSignals

READY_POLL_SECONDS = 0.05
READY_REQUEST_SECONDS = 5.0

OnReady = Callable[[str], None]


def prepare_ready_file(path: Path) -> None:
    """Remove an old ready file, which a waiting process would take for this server's. Raises ConfigurationError."""
    try:
        path.unlink(missing_ok=True)
        if not os.access(path.parent, os.W_OK):
            raise PermissionError(0, "its directory is not writable")
    except OSError as error:
        raise ConfigurationError(f"The ready file {path} cannot be made: {error.strerror}.") from error


def write_ready_file(path: Path, *, url: str, key: str | None) -> None:
    """Write the file atomically and readable by its owner only, because it may contain a key."""
    content: dict[str, str | int] = {"url": url, "pid": os.getpid()}
    if key is not None:
        content["key"] = key
    # mkstemp creates the file with mode 0600.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(content, file)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def remove_ready_file(path: Path) -> None:
    """Remove the file if this process wrote it."""
    with contextlib.suppress(OSError, ValueError):
        if json.loads(path.read_text()).get("pid") == os.getpid():
            path.unlink()


class Startable(Protocol):
    """An API in this process or in others."""

    @property
    def started(self) -> bool:
        """Whether all of it accepts connections."""


class ReadyAnnouncement(threading.Thread):
    """Waits until the server answers requests, then makes its key, writes the ready file, and calls `on_ready`.

    `make_key` returns the key for the file, if any: a start that fails has made none. `failure` is what ended the
    server, after the thread's end: the key or the file could not be made.
    """

    def __init__(
        self,
        *,
        url: str,
        make_key: Callable[[], str | None],
        ready_file: Path | None,
        api: Startable,
        on_ready: OnReady,
        signals: StopSignals,
    ) -> None:
        super().__init__(name="ready")
        self.failure: Exception | None = None
        self._url = url
        self._make_key = make_key
        self._ready_file = ready_file
        self._api = api
        self._on_ready = on_ready
        self._signals = signals

    def run(self) -> None:
        while not (self._api.started and _is_healthy(self._url)):
            if self._signals.requested:
                return
            time.sleep(READY_POLL_SECONDS)
        try:
            key = self._make_key()
            if self._ready_file is not None:
                write_ready_file(self._ready_file, url=self._url, key=key)
            self._on_ready(self._url)
        except (RegenError, OSError) as error:
            self.failure = error
            self._signals.request()


def _is_healthy(url: str) -> bool:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=READY_REQUEST_SECONDS)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
