"""The API process."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from anyio import to_thread
from fastapi import APIRouter, FastAPI

from app.accounts import routes as account_routes
from app.accounts.key_use import KeyUse
from app.administration import routes as administration_routes
from app.console import routes as console_routes
from app.destinations import routes as destination_routes
from app.destinations.dispatcher import DestinationDispatcher
from app.engines import routes as engine_routes
from app.estimates import routes as estimate_routes
from app.files import routes as file_routes
from app.http import documentation, health, help_pages, metrics_routes, stored_objects
from app.http.errors import add_error_handlers, documented
from app.http.fields import EmptyParameters
from app.http.health_checks import HealthChecks, Readiness
from app.http.metrics import HttpMetrics
from app.http.middleware import (
    BodyRules,
    Cors,
    ErrorBoundary,
    HeadRequests,
    LingeringClose,
    PrivateAnswers,
    PublicPath,
)
from app.http.openapi import operation_id
from app.http.rate_limit import RateLimitHeaders
from app.http.read_retry import ReadRetry
from app.http.request_log import RequestLog
from app.http.resources import OpenResources, drop_unused_copies, open_resources, tidy_spool_directory
from app.http.tracing import trace_requests
from app.platform.logs import drop_query
from app.platform.settings import Settings, get_settings
from app.platform.tracing import stop_tracing
from app.playlists import routes as playlist_routes
from app.playlists.stored_tracks import StoredTracks
from app.previews import routes as preview_routes
from app.renders import routes as render_routes
from app.renders.streams import RenderStreams
from app.uploads import routes as upload_routes
from app.usage import routes as usage_routes
from app.webhooks import routes as webhook_routes
from app.webhooks.dispatcher import WebhookDispatcher
from app.work import routes as work_routes

MakeWebhooks = Callable[..., WebhookDispatcher]

# In the order of the API's description: those that need a key, and those that do not.
ROUTERS = (
    render_routes.router,
    destination_routes.router,
    playlist_routes.router,
    preview_routes.router,
    estimate_routes.router,
    file_routes.router,
    upload_routes.router,
    engine_routes.router,
    work_routes.router,
    webhook_routes.router,
    usage_routes.router,
    account_routes.router,
    administration_routes.router,
)
OPEN_ROUTERS = (
    health.router,
    metrics_routes.router,
    stored_objects.router,
    playlist_routes.parts_router,
    documentation.router,
    help_pages.router,
    console_routes.router,
)
# FastAPI prepares routes at the first request, which takes 60 ms, and anew for each inclusion: all applications of a
# process share one. `responses`: the middleware of every route may give these answers.
INCLUDED = APIRouter(generate_unique_id_function=operation_id)
for _router in ROUTERS:
    INCLUDED.include_router(_router, responses=documented(400, 401, 403, 429, 500, 503))
for _router in OPEN_ROUTERS:
    INCLUDED.include_router(_router, responses=documented(400, 500))


def create_app(
    settings: Settings | None = None,
    *,
    opening: OpenResources = open_resources,
    own_url: str | None = None,
    metrics_dir: Path | None = None,
    make_webhooks: MakeWebhooks = WebhookDispatcher,
) -> FastAPI:
    """The ASGI application.

    `settings` are the process's own unless given; `opening` opens what it works with. `own_url` is the
    address at which the server listens: for URLs in webhooks, which `make_webhooks` sends, if no public one
    is set. `metrics_dir`: see `HttpMetrics`. The resources are opened when the server starts and closed when it
    stops; starting raises ConfigurationError, FfmpegMissing or StorageError if the settings or the machine are wrong.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # `regen serve` writes no access lines of uvicorn; other ways to run the application may.
        logging.getLogger("uvicorn.access").addFilter(drop_query)
        with opening(settings or get_settings()) as resources:
            app.state.resources = resources
            app.state.health_checks = HealthChecks(resources)
            app.state.readiness = Readiness(app.state.health_checks, resources.spool_space)
            app.state.stored_tracks = StoredTracks(resources.storage)
            app.state.streams = RenderStreams(resources, app.state.health_checks)
            app.state.key_use = KeyUse(resources.database)
            app.state.webhooks = make_webhooks(resources, base_url=resources.settings.public_url or own_url)
            app.state.destinations = DestinationDispatcher(resources)
            app.state.webhooks.start()
            app.state.destinations.start()
            chores = [
                asyncio.create_task(tidy_spool_directory(resources)),
                asyncio.create_task(drop_unused_copies(resources)),
                asyncio.create_task(app.state.key_use.keep()),
            ]
            try:
                yield
            finally:
                await to_thread.run_sync(app.state.destinations.stop)
                await to_thread.run_sync(app.state.webhooks.stop)
                for chore in chores:
                    chore.cancel()
                await resources.rate_limit.close()
                await to_thread.run_sync(stop_tracing)

    app = FastAPI(
        lifespan=lifespan,
        # A redirect makes clients send a whole upload twice, or to the wrong address behind a proxy.
        redirect_slashes=False,
        generate_unique_id_function=operation_id,
        # The framework's pages load their scripts from other sites; `documentation` replaces them.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
    )

    async def database_answers() -> bool:
        checks: HealthChecks = app.state.health_checks
        return await checks.database_answers()

    app.state.metrics = HttpMetrics(shared_dir=metrics_dir)
    app.state.refuses_unknown_names = lambda: False
    app.state.is_mock = False
    app.state.sign_in_code = None
    add_error_handlers(app)
    # The last one added is the outermost.
    app.add_middleware(EmptyParameters)
    app.add_middleware(HeadRequests)
    app.add_middleware(PrivateAnswers)
    app.add_middleware(RateLimitHeaders)
    app.add_middleware(
        ReadRetry,
        seconds=lambda: app.state.resources.settings.read_patience_seconds,
        answers=database_answers,
    )
    app.add_middleware(BodyRules)
    app.add_middleware(ErrorBoundary)
    app.add_middleware(LingeringClose)
    app.add_middleware(Cors, origins=lambda: app.state.resources.settings.cors_origins)
    app.add_middleware(RequestLog, metrics=app.state.metrics)
    app.add_middleware(PublicPath, public_url=lambda: app.state.resources.settings.public_url)
    trace_requests(app)
    app.router.routes.extend(INCLUDED.routes)
    return app


def begin_end(app: FastAPI) -> None:
    """Tell probes that the running application stops, and end its streams of events."""
    readiness: Readiness = app.state.readiness
    readiness.stop()
    streams: RenderStreams = app.state.streams
    streams.end()
