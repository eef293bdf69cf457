"""Starts, runs and stops the server, from the lock on the data directory to the end of the last child process."""

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import structlog

from app import migrations
from app.accounts import service as account_service
from app.platform.database import Database
from app.platform.errors import ConfigurationError
from app.platform.media.confinement import OFF
from app.platform.media.sandbox import missing_layers
from app.platform.network_limits import is_on_network, network_limits
from app.platform.secrets import Secrets
from app.platform.settings import Settings
from app.serving.api import ApiServer
from app.serving.api_processes import ApiProcesses, make_api, new_run_directory, sign_in_code
from app.serving.broker import remove_socket, start_broker
from app.serving.child import ChildProcess
from app.serving.listener import listen, local_url
from app.serving.process_lock import locked_data_directory
from app.serving.ready_file import OnReady, ReadyAnnouncement, prepare_ready_file, remove_ready_file
from app.serving.signals import StopSignals
from app.serving.supervisor import BROKER_GRACE_SECONDS, WORKER_GRACE_SECONDS, SupervisedProcess, Supervisor
from app.serving.workers import worker_command

log = structlog.get_logger(__name__)

# How long the end waits for threads of abandoned requests.
LEFT_THREADS_SECONDS = 2.0

OnFirstKey = Callable[[str], None]


def serve(
    settings: Settings,
    *,
    host: str,
    port: int,
    ready_file: Path | None,
    with_worker: bool,
    on_first_key: OnFirstKey,
    on_no_key: Callable[[], None],
    on_ready: OnReady,
    on_sign_in_link: Callable[[str], None],
) -> None:
    """Serve in the main thread until a signal requests a stop.

    Once requests are answered, in another thread: `on_first_key` receives the new key on the first start,
    `on_no_key` is called if there are users but no usable key, and finally `on_ready` receives the URL, and on a
    loopback address `on_sign_in_link` the console's, which signs the owner in once.
    Raises ConfigurationError, and what the database raises.
    """
    with ExitStack() as stack:
        stack.enter_context(locked_data_directory(settings.root))
        stack.enter_context(new_run_directory(settings))
        signals = stack.enter_context(StopSignals())
        listener = stack.enter_context(listen(host, port))
        if is_on_network(settings, listener.getsockname()[0]):
            _tell_hardening(settings)
        if ready_file is not None:
            ready_file = ready_file.expanduser().absolute()
            prepare_ready_file(ready_file)
            stack.callback(remove_ready_file, ready_file)
        keys = Secrets.load(settings)
        database = Database.from_settings(settings)
        stack.callback(database.close)
        migrations.upgrade(database)
        broker = _first_broker(settings, stack) if settings.broker_url is None else None
        code = sign_in_code(settings, listener)

        def announce(url: str) -> None:
            on_ready(url)
            if code is not None:
                on_sign_in_link(code.link(url))

        processes: Sequence[SupervisedProcess] = ()
        api: ApiServer | ApiProcesses
        if settings.api_processes > 1:
            api = ApiProcesses(settings, listener)
            processes, run = api.children, partial(api.serve, signals)
        else:
            api = make_api(settings, listener)
            signals.on_stop = api.stop
            run = partial(api.serve_socket, listener)
        if signals.requested:
            return
        supervisor = Supervisor(
            brokers=[] if broker is None else [broker],
            users=[*processes, *([_worker(settings)] if with_worker else [])],
            stopping=lambda: signals.requested,
            hurrying=lambda: signals.repeated,
            give_up=signals.request,
        )
        ready = ReadyAnnouncement(
            url=local_url(listener),
            make_key=lambda: first_key(database, keys, on_first_key=on_first_key, on_no_key=on_no_key),
            ready_file=ready_file,
            api=api,
            on_ready=announce,
            signals=signals,
        )
        supervisor.start()
        ready.start()
        try:
            run()
        finally:
            stopped_by_request, signals.requested = signals.requested, True
            supervisor.api_has_stopped()
            ready.join()
            supervisor.join()
        if ready.failure is not None:
            raise ready.failure
        if not stopped_by_request:
            raise ConfigurationError("The API has stopped by itself. The log says why.")


def end_process() -> None:
    """End this process once its threads have ended, or soon without them: one in a system call cannot be interrupted.

    They work for requests that were answered 503, or whose client has disconnected.
    """
    ends_at = time.monotonic() + LEFT_THREADS_SECONDS
    others = [one for one in threading.enumerate() if one is not threading.main_thread() and not one.daemon]
    for thread in others:
        thread.join(max(0.0, ends_at - time.monotonic()))
    if left := [one.name for one in others if one.is_alive()]:
        log.warning("threads_left_behind", threads=len(left))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(os.EX_OK)


def _tell_hardening(settings: Settings) -> None:
    log.info("limits_by_default", **network_limits(settings))
    if settings.sandbox != OFF and (missing := missing_layers()):
        log.warning("sandbox_incomplete", missing=missing)


def _first_broker(settings: Settings, stack: ExitStack) -> SupervisedProcess:
    socket_path = settings.broker_socket
    child = start_broker(socket_path)
    stack.callback(remove_socket, socket_path)
    # In case of a failure before the supervisor takes over.
    stack.callback(child.stop, grace_seconds=BROKER_GRACE_SECONDS)
    kept = SupervisedProcess("broker", lambda: start_broker(socket_path), grace_seconds=BROKER_GRACE_SECONDS)
    kept.adopt(child)
    return kept


def _worker(settings: Settings) -> SupervisedProcess:
    command = worker_command(settings)
    return SupervisedProcess(
        "worker",
        # A stop of `regen serve`, such as Ctrl-C on a laptop, does not wait for a segment.
        lambda: ChildProcess(command, environment={**os.environ, "REGEN_DRAIN_SECONDS": "0"}),
        grace_seconds=WORKER_GRACE_SECONDS,
    )


def first_key(
    database: Database, keys: Secrets, *, on_first_key: OnFirstKey, on_no_key: Callable[[], None]
) -> str | None:
    """Make the first user's key and return it; None if there is a user.

    Calls `on_no_key` if no key can be used. `on_first_key` shows the key before it is committed: a key that
    could not be shown does not exist.
    """
    with database.write() as session:
        made = account_service.create_first_key(session, keys=keys)
        if made is not None:
            on_first_key(made.key)
            return made.key
        is_usable = account_service.has_usable_key(session)
    if not is_usable:
        on_no_key()
    return None
