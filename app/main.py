"""The API process."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from app.api.errors import add_error_handlers
from app.api.metrics import HttpMetrics
from app.api.middleware import ErrorBoundary, LingeringClose
from app.api.observation import Observation
from app.api.patience import Patience
from app.api.resources import open_resources, tidy_spool_directory
from app.api.routes import engines, files, health, metrics, renders, stored, upscale, workers
from app.api.watch import Watch
from app.core.logs import drop_query
from app.core.settings import Settings, get_settings


def create_app(settings: Settings | None = None) -> FastAPI:
    """The ASGI application. `settings` are the process's own unless given.

    What it works with is opened when the server starts and closed when it stops; starting raises ConfigurationError,
    FfmpegMissing or StorageError when the settings or the machine do not add up.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # Our own server writes no access lines beside ours; whoever runs the application otherwise may.
        logging.getLogger("uvicorn.access").addFilter(drop_query)
        with open_resources(settings or get_settings()) as resources:
            app.state.resources = resources
            app.state.watch = Watch(resources)
            tidying = asyncio.create_task(tidy_spool_directory(resources))
            try:
                yield
            finally:
                tidying.cancel()

    app = FastAPI(
        title="Regen",
        description="Upscales videos four times. Authenticate with `Authorization: Bearer <API key>`.",
        lifespan=lifespan,
        # A redirect makes clients send a whole upload twice, or to the wrong address behind a proxy.
        redirect_slashes=False,
    )

    async def database_answers() -> bool:
        watch: Watch = app.state.watch
        return await watch.database_answers()

    app.state.metrics = HttpMetrics()
    add_error_handlers(app)
    # The last one added is the outermost.
    app.add_middleware(
        Patience,
        seconds=lambda: app.state.resources.settings.read_patience_seconds,
        answers=database_answers,
    )
    app.add_middleware(ErrorBoundary)
    app.add_middleware(LingeringClose)
    app.add_middleware(Observation, metrics=app.state.metrics)
    for routes in (upscale, renders, files, engines, workers, health, metrics, stored):
        app.include_router(routes.router)
    return app
