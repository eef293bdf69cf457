"""The API server in this process: uvicorn on an existing socket, with the server's own signal handlers."""

import asyncio
import contextlib
import gc
import socket
import sys
from collections.abc import Callable, Generator

import structlog
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.connections import ConnectionCounts, ConnectionLimits, Connections
from app.http.turns import TakeTurns
from app.http.uvicorn_protocol import HttpProtocol
from app.platform.errors import ConfigurationError, RegenError
from app.platform.settings import Settings
from app.serving.acceptor import Acceptor
from app.serving.open_files import allow_open_files

REQUEST_GRACE_SECONDS = 10
# For how long one thread keeps the interpreter while others want it. A request changes threads several times: at
# Python's own 5 ms it would wait for long beside one that computes.
THREAD_SECONDS = 0.0005

log = structlog.get_logger(__name__)


def connection_limits(settings: Settings) -> ConnectionLimits:
    """The limits of this process, whose limit of open files is raised for them as far as allowed."""
    wished = ConnectionLimits.from_settings(settings)
    open_files = allow_open_files(wished.wanted_files)
    limits = ConnectionLimits.from_settings(settings, open_files=open_files)
    if limits.most < wished.most:
        log.warning("few_open_files", open_files=open_files, max_connections=limits.most)
    return limits


class ApiServer(uvicorn.Server):
    """One application, served until `stop` is called."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        limits: ConnectionLimits,
        counts: ConnectionCounts | None = None,
        protocol: type[HttpProtocol] = HttpProtocol,
        before_grace: Callable[[], None] = lambda: None,
        on_accepting: Callable[[], None] = lambda: None,
    ) -> None:
        """`counts`: see `Connections`. `before_grace` is called at the stop, before the wait for open requests: it ends
        endless ones. `on_accepting` is called once connections are accepted."""
        self._startup = _StartupFailure(app)
        self._on_accepting = on_accepting
        self._before_grace = before_grace
        self._protocol = protocol
        self._connections = Connections(limits, counts=counts)
        super().__init__(
            uvicorn.Config(
                TakeTurns(self._startup),
                log_config=None,
                # The application writes its own line for each request.
                access_log=False,
                lifespan="on",
                loop="asyncio",
                ws="none",
                http=protocol,
                timeout_keep_alive=limits.keep_alive_seconds,  # type: ignore[arg-type]  # a timer's seconds
                server_header=False,
                timeout_graceful_shutdown=REQUEST_GRACE_SECONDS,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Keep the server's own handlers instead of uvicorn's."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, then accept connections on `sockets`, which closing the server closes."""
        await super().startup(sockets=[])
        self.servers = [  # an Acceptor does everything that uvicorn does with servers
            Acceptor(listener, self._make_protocol, self._connections)  # type: ignore[misc]
            for listener in sockets or ()
        ]
        # What is there now stays. To search these 300,000 objects for garbage takes a tenth of a second, in which no
        # request is answered.
        gc.freeze()
        if not self.should_exit:
            self._on_accepting()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        del sockets
        self._before_grace()
        await super().shutdown()

    def _make_protocol(self) -> HttpProtocol:
        return self._protocol(
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
            _loop=asyncio.get_running_loop(),
            connections=self._connections,
        )

    def stop(self, again: bool) -> None:
        """Stop accepting requests; with `again`, do not wait for open ones. Safe in signal handlers."""
        self.should_exit = True
        self.force_exit = self.force_exit or again

    def serve_socket(self, listener: socket.socket) -> None:
        """Serve until stopped. If the application cannot start, raises its RegenError, else ConfigurationError."""
        sys.setswitchinterval(THREAD_SECONDS)
        try:
            self.run(sockets=[listener])
        except SystemExit as error:
            if self._startup.failure is not None:
                raise self._startup.failure from None
            raise ConfigurationError("The API could not start. The log says why.") from error


class _StartupFailure:
    """An ASGI wrapper that keeps a RegenError of the application's start, which uvicorn would log as a traceback, as it
    would the end of an application that is not waited for."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.failure: RegenError | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        failed: list[Message] = []

        async def hold_failure(message: Message) -> None:
            if message["type"] in ("lifespan.startup.failed", "lifespan.shutdown.failed"):
                failed.append(message)
            else:
                await send(message)

        try:
            await self._app(scope, receive, hold_failure)
        except RegenError as error:
            self.failure = error
            failed = [{"type": "lifespan.startup.failed", "message": ""}]
        except asyncio.CancelledError:
            failed = []  # By a second signal. uvicorn would log a traceback of this error, too.
        finally:
            for message in failed:
                await send(message)
