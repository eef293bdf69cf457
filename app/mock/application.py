"""The mock as an ASGI application: the server's own, opened with other parts."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from ipaddress import ip_network
from pathlib import Path

from fastapi import FastAPI
from pydantic import SecretStr
from starlette.middleware import Middleware

from app.http.access import ANY_HOST
from app.http.resources import Resources, open_resources
from app.main import create_app
from app.mock import routes
from app.mock.control import Mock
from app.mock.database import count_start, follow_clock, make_tables
from app.mock.driver import MockBroker, MockDriver
from app.mock.faults import urls_expire
from app.mock.middleware import FaultMiddleware, RequestScopeMiddleware, StrictParametersMiddleware
from app.mock.options import MockOptions
from app.mock.results import ResultMaker
from app.mock.webhooks import make_dispatcher
from app.platform import clock, secrets
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.secrets import Secrets
from app.platform.settings import Settings
from app.platform.storage.contract import Storage
from app.platform.storage.local import LocalStorage

EVERYWHERE = (ip_network("0.0.0.0/0"), ip_network("::/0"))
# It protects nothing: every client of a mock can read it here.
SECRET = "the secret of every mock, which is none"  # noqa: S105


def create_mock_app(settings: Settings, options: MockOptions, *, own_url: str | None = None) -> FastAPI:
    """`settings` are those of `mock_settings`. From now on ids and times of this process are the mock's."""
    mock = Mock.from_options(options)
    clock.set_source(mock.repeatable.now)
    secrets.set_id_source(mock.repeatable.new_id)

    @contextmanager
    def opening(settings: Settings) -> Iterator[Resources]:
        with _open(settings, mock):
            yield mock.resources

    app = create_app(
        settings,
        opening=opening,
        own_url=own_url,
        make_webhooks=partial(make_dispatcher, faults=mock.faults, sent=mock.webhooks),
    )
    app.state.mock = mock
    app.state.is_mock = True
    app.state.refuses_unknown_names = lambda: mock.options.strict
    app.router.routes.extend(routes.router.routes)
    app.add_middleware(RequestScopeMiddleware, repeatable=mock.repeatable)
    # Outside the two that change a request: requests are recorded as they were sent.
    app.user_middleware.insert(
        -2,
        Middleware(FaultMiddleware, requests=mock.requests, faults=mock.faults, driver=lambda: mock.driver),
    )
    # Innermost.
    app.user_middleware.append(Middleware(StrictParametersMiddleware))
    return app


def mock_settings(settings: Settings, *, data_dir: Path) -> Settings:
    """Replaces the settings of a real server's data and connections."""
    return settings.model_copy(
        update={
            # A separate folder, because it is emptied on request.
            "data_dir": data_dir / "mock",
            "database_url": None,
            "broker_url": None,
            "storage": "local",
            "secret_key": SecretStr(SECRET),
            "api_processes": 1,
            # A real server may refuse these; receivers of a mock's webhooks run on the developer's own machine.
            "allow_file_urls": True,
            # Other machines may use any name for it, such as its service in a compose file.
            "allowed_hosts": settings.allowed_hosts or (ANY_HOST,),
            "outbound_allowed_networks": settings.outbound_allowed_networks or EVERYWHERE,
        }
    )


@contextmanager
def _open(settings: Settings, mock: Mock) -> Iterator[None]:
    broker = MockBroker()

    def make_storage(settings: Settings, keys: Secrets) -> Storage:
        return MockStorage(root=settings.storage_dir, url_key=keys.url_key, clock=mock.repeatable.seconds)

    with open_resources(
        settings, make_broker=lambda _settings: broker, make_storage=make_storage
    ) as resources:
        follow_clock(resources.database, mock.repeatable.now)
        make_tables(resources.database)
        mock.repeatable.run = count_start(settings.root)
        mock.resources = resources
        mock.fill()
        results = ResultMaker(
            runner=FfmpegRunner.for_work(settings),
            storage=resources.storage,
            directory=settings.work_dir / "results",
        )
        mock.driver = MockDriver(
            database=resources.database,
            results=results,
            faults=mock.faults,
            repeatable=mock.repeatable,
            transitions=mock.options.transitions,
        )
        broker.start(mock.driver)
        yield


EXPIRED_SECONDS = -1


class MockStorage(LocalStorage):
    """See Storage. A fault may let its URLs have expired from the start."""

    def signed_url(self, key: str, *, base_url: str, file_name: str, lifetime_seconds: int) -> str:
        return super().signed_url(
            key,
            base_url=base_url,
            file_name=file_name,
            lifetime_seconds=EXPIRED_SECONDS if urls_expire.get() else lifetime_seconds,
        )
