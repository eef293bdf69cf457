"""Runs the mock in one process, from the lock on its data directory to the last answer."""

import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from app.main import begin_end
from app.mock.application import create_mock_app, mock_settings
from app.mock.options import KEY, MockOptions
from app.mock.transfers import CuttableProtocol
from app.platform.errors import ConfigurationError
from app.platform.settings import Settings
from app.serving.api import ApiServer, connection_limits
from app.serving.listener import listen, local_url
from app.serving.process_lock import locked_data_directory
from app.serving.ready_file import OnReady, ReadyAnnouncement, prepare_ready_file, remove_ready_file
from app.serving.signals import StopSignals


def serve_mock(
    settings: Settings,
    *,
    data_dir: Path | None,
    host: str,
    port: int,
    ready_file: Path | None,
    on_ready: OnReady,
) -> None:
    """Serves in the main thread until a signal stops it. `data_dir` replaces that of the settings.

    Raises ConfigurationError, and what opening the application raises.
    """
    options = MockOptions.from_settings(settings)
    with ExitStack() as stack:
        directory = data_dir or settings.mock_data_dir
        if directory is None:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="regen-mock-")))
        settings = mock_settings(settings, data_dir=directory.expanduser())
        stack.enter_context(locked_data_directory(settings.root))
        signals = stack.enter_context(StopSignals())
        listener = stack.enter_context(listen(host, port))
        if ready_file is not None:
            ready_file = ready_file.expanduser().absolute()
            prepare_ready_file(ready_file)
            stack.callback(remove_ready_file, ready_file)
        url = local_url(listener)
        app = create_mock_app(settings, options, own_url=url)
        api = ApiServer(
            app,
            limits=connection_limits(settings),
            protocol=CuttableProtocol,
            before_grace=partial(begin_end, app),
        )
        signals.on_stop = api.stop
        if signals.requested:
            return
        ready = ReadyAnnouncement(
            url=url,
            make_key=lambda: KEY,
            ready_file=ready_file,
            api=api,
            on_ready=on_ready,
            signals=signals,
        )
        ready.start()
        try:
            api.serve_socket(listener)
        finally:
            stopped_by_request, signals.requested = signals.requested, True
            ready.join()
        if ready.failure is not None:
            raise ready.failure
        if not stopped_by_request:
            raise ConfigurationError("The mock has stopped by itself. The log says why.")
