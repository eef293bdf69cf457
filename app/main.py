"""The API process."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from anyio import to_thread
from fastapi import FastAPI

from app.api.cors import Cors
from app.api.errors import add_error_handlers
from app.api.key_use import KeyUse
from app.api.metrics import HttpMetrics
from app.api.middleware import BodyLimit, ErrorBoundary, LingeringClose
from app.api.observation import Observation
from app.api.openapi import operation_id
from app.api.patience import Patience
from app.api.rate_limit import RateLimitHeaders
from app.api.render_streams import open_streams
from app.api.resources import OpenResources, open_resources, tidy_spool_directory
from app.api.routes import (
    administration,
    documentation,
    engines,
    estimates,
    events,
    files,
    health,
    metrics,
    previews,
    renders,
    requeueing,
    stored,
    upload_parts,
    uploads,
    upscale,
    usage,
    webhooks,
    workers,
)
from app.api.watch import Watch
from app.api.webhook_dispatcher import WebhookDispatcher
from app.core.logs import drop_query
from app.core.settings import Settings, get_settings

MakeWebhooks = Callable[..., WebhookDispatcher]


def create_app(
    settings: Settings | None = None,
    *,
    opening: OpenResources = open_resources,
    own_url: str | None = None,
    make_webhooks: MakeWebhooks = WebhookDispatcher,
) -> FastAPI:
    """The ASGI application. `settings` are the process's own unless given; `opening` opens what it works with.
    `own_url` is where the server listens: for URLs in webhooks, which `make_webhooks` sends, when no public one is set.

    What it works with is opened when the server starts and closed when it stops; starting raises ConfigurationError,
    FfmpegMissing or StorageError when the settings or the machine do not add up.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # Our own server writes no access lines beside ours; whoever runs the application otherwise may.
        logging.getLogger("uvicorn.access").addFilter(drop_query)
        with opening(settings or get_settings()) as resources:
            app.state.resources = resources
            app.state.watch = Watch(resources)
            app.state.streams = open_streams(resources, app.state.watch)
            app.state.key_use = KeyUse(resources.database)
            app.state.webhooks = make_webhooks(resources, base_url=resources.settings.public_url or own_url)
            app.state.webhooks.start()
            chores = [
                asyncio.create_task(tidy_spool_directory(resources)),
                asyncio.create_task(app.state.key_use.keep()),
            ]
            try:
                yield
            finally:
                await to_thread.run_sync(app.state.webhooks.stop)
                for chore in chores:
                    chore.cancel()
                await resources.rate_limit.close()

    app = FastAPI(
        lifespan=lifespan,
        # A redirect makes clients send a whole upload twice, or to the wrong address behind a proxy.
        redirect_slashes=False,
        generate_unique_id_function=operation_id,
        # The framework's pages load their scripts from elsewhere; `documentation` has what stands in for them.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
    )

    async def database_answers() -> bool:
        watch: Watch = app.state.watch
        return await watch.database_answers()

    app.state.metrics = HttpMetrics()
    add_error_handlers(app)
    # The last one added is the outermost.
    app.add_middleware(RateLimitHeaders)
    app.add_middleware(
        Patience,
        seconds=lambda: app.state.resources.settings.read_patience_seconds,
        answers=database_answers,
    )
    app.add_middleware(BodyLimit)
    app.add_middleware(ErrorBoundary)
    app.add_middleware(LingeringClose)
    app.add_middleware(Cors, origins=lambda: app.state.resources.settings.cors_origins)
    app.add_middleware(Observation, metrics=app.state.metrics)
    for routes in (
        upscale,
        renders,
        previews,
        events,
        estimates,
        files,
        uploads,
        engines,
        workers,
        health,
        metrics,
        stored,
        webhooks,
        upload_parts,
        documentation,
        usage,
        administration,
        requeueing,
    ):
        app.include_router(routes.router)
    return app
