"""Telling that the server answers: by the ready file, and to whoever started it."""

import http.client
import os
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import structlog

from app.platform.errors import ConfigurationError
from app.serving.api import ApiServer
from app.serving.places import write_ready_file
from app.serving.signals import StopSignals

log = structlog.get_logger(__name__)

READY_POLL_SECONDS = 0.05
READY_REQUEST_SECONDS = 5.0

OnReady = Callable[[str], None]


def prepare_ready_file(path: Path) -> None:
    """Remove an old one, which whoever waits would take for ours."""
    try:
        path.unlink(missing_ok=True)
        if not os.access(path.parent, os.W_OK):
            raise PermissionError(0, "its directory cannot be written")
    except OSError as error:
        raise ConfigurationError(f"The ready file {path} cannot be made: {error.strerror}.") from error


def announce(
    *,
    url: str,
    key: str | None,
    ready_file: Path | None,
    api: ApiServer,
    on_ready: OnReady,
    signals: StopSignals,
) -> None:
    """Wait until requests are answered, in a thread beside the server; then write the file and call `on_ready`."""
    while not signals.requested:
        if api.started and _is_healthy(url):
            try:
                if ready_file is not None:
                    write_ready_file(ready_file, url=url, key=key)
            except OSError as error:
                log.error("ready_file_failed", path=str(ready_file), error=str(error))
                signals.request()
                return
            on_ready(url)
            return
        time.sleep(READY_POLL_SECONDS)


def _is_healthy(url: str) -> bool:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=READY_REQUEST_SECONDS)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
