"""Several API processes that accept from one listening socket: `regen serve --api-processes`.

The parent opens the socket, migrates the database, makes the first key, and starts and supervises the processes; each
of them runs the application. What they share on this machine is in the run directory.
"""

import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from prometheus_client.multiprocess import mark_process_dead

from app.console.sign_in import SignInCode
from app.http.connections import ConnectionCounts, make_counts
from app.http.neighbours import forget
from app.main import begin_end, create_app
from app.platform.network_limits import is_on_network, network_limits
from app.platform.settings import Settings
from app.serving.api import REQUEST_GRACE_SECONDS, ApiServer, connection_limits
from app.serving.child import ChildProcess
from app.serving.listener import inherited, local_url
from app.serving.signals import StopSignals
from app.serving.supervisor import SupervisedProcess

# In addition to the time for open requests: what the application takes to close, with webhooks in hand.
CLOSING_GRACE_SECONDS = 15.0
POLL_SECONDS = 0.05
# Tells prometheus_client to keep metrics in files; it must be set before that is imported.
METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


@contextmanager
def new_run_directory(settings: Settings) -> Iterator[None]:
    """Empty now, and removed at the end. The caller holds the lock on the data directory."""
    shutil.rmtree(settings.run_dir, ignore_errors=True)
    _metrics_dir(settings).mkdir(mode=0o700, parents=True)
    if settings.api_processes > 1:
        make_counts(_counts_path(settings), settings.api_processes)
    try:
        yield
    finally:
        shutil.rmtree(settings.run_dir, ignore_errors=True)


def sign_in_code(settings: Settings, listener: socket.socket) -> SignInCode | None:
    """The code that signs in to the console; none if clients on other machines reach the server."""
    if is_on_network(settings, listener.getsockname()[0]):
        return None
    return SignInCode(settings.run_dir / "sign-in")


def make_api(settings: Settings, listener: socket.socket, *, number: int | None = None) -> ApiServer:
    """The API of this process, to be served on `listener`. `number`: of several processes, from 0."""
    if is_on_network(settings, listener.getsockname()[0]):
        settings = settings.model_copy(update=network_limits(settings))
    code = sign_in_code(settings, listener)
    if number:
        # How many are sent at once, and to one receiver, is a matter of the whole server.
        settings = settings.model_copy(update={"webhook_concurrency": 0, "destination_concurrency": 0})
    app = create_app(
        settings,
        own_url=local_url(listener),
        metrics_dir=None if number is None else _metrics_dir(settings),
    )
    app.state.sign_in_code = code
    return ApiServer(
        app,
        limits=connection_limits(settings),
        counts=None if number is None else ConnectionCounts(_counts_path(settings), number=number),
        before_grace=partial(begin_end, app),
        on_accepting=(lambda: None) if number is None else _accepts_file(settings, number).touch,
    )


def serve_inherited(settings: Settings, *, number: int, descriptor: int) -> None:
    """Serve as one of several processes, in the main thread, until a signal requests a stop.

    Raises the RegenError for which the application cannot start.
    """
    with StopSignals() as signals, inherited(descriptor) as listener:
        api = make_api(settings, listener, number=number)
        signals.on_stop = api.stop
        if not signals.requested:
            api.serve_socket(listener)


class ApiProcesses:
    """As many as the settings say, for the process that opened `listener`."""

    def __init__(self, settings: Settings, listener: socket.socket) -> None:
        self._settings = settings
        self._listener = listener
        self.children: Sequence[SupervisedProcess] = [
            SupervisedProcess(
                f"api {number}",
                partial(self._start, number),
                grace_seconds=REQUEST_GRACE_SECONDS + CLOSING_GRACE_SECONDS,
                on_end=self._forget,
            )
            for number in range(settings.api_processes)
        ]

    @property
    def started(self) -> bool:
        """Whether each of them has begun to accept connections."""
        numbers = range(self._settings.api_processes)
        return all(_accepts_file(self._settings, number).exists() for number in numbers)

    def serve(self, signals: StopSignals) -> None:
        """Returns at once when a stop is requested, or none of them can start; then no more connections are queued."""
        while not signals.requested and not all(child.misconfigured for child in self.children):
            time.sleep(POLL_SECONDS)
        self._listener.close()

    def _start(self, number: int) -> ChildProcess:
        descriptor = self._listener.fileno()
        command = [
            *(sys.executable, "-P", "-m", "app.cli", "api-process"),
            *("--data-dir", str(self._settings.root), "--parent-pid", str(os.getpid())),
            *("--number", str(number), "--of", str(self._settings.api_processes)),
            *("--descriptor", str(descriptor)),
        ]
        return ChildProcess(
            command,
            environment={**os.environ, METRICS_VARIABLE: str(_metrics_dir(self._settings))},
            descriptors=[descriptor],
        )

    def _forget(self, pid: int) -> None:
        with suppress(OSError):
            mark_process_dead(pid, str(_metrics_dir(self._settings)))  # type: ignore[no-untyped-call]
            forget(self._settings, pid)


def _metrics_dir(settings: Settings) -> Path:
    return settings.run_dir / "metrics"


def _counts_path(settings: Settings) -> Path:
    return settings.run_dir / "connections"


def _accepts_file(settings: Settings, number: int) -> Path:
    """Made by the process of that number once it accepts connections."""
    return settings.run_dir / f"accepts-{number}"
