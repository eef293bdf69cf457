"""A worker's row among the workers: made at its start, kept fresh while it lives, removed at its end."""

import os
import secrets
import socket
import threading
from contextvars import copy_context
from typing import Any

import structlog

from app.platform.errors import RegenError
from app.platform.metrics import server_version
from app.platform.work_kinds import WorkQueue
from app.work import worker_queries
from app.work.ledger import WorkLedger
from models.catalog import ENGINES

LONGEST_INTERVAL_SECONDS = 5.0
LONGEST_NAME = 100
RANDOM_BYTES = 3

log = structlog.get_logger(__name__)


def worker_name() -> str:
    """A name that no other process has or had: in containers host names and process ids come again."""
    mark = f"-{os.getpid()}-{secrets.token_hex(RANDOM_BYTES)}"
    return socket.gethostname()[: LONGEST_NAME - len(mark)] + mark


class Registration:
    """A thread that says that the worker lives. What it has in hand is written down by its claims themselves.

    Nothing depends on it: while the database is away it goes on trying, and the worker goes on working.
    """

    def __init__(self, ledger: WorkLedger, *, device: str, device_name: str | None = None) -> None:
        """`device_name` is what the speeds of such devices are kept under; None for a worker that has none."""
        self._ledger = ledger
        self._interval_seconds = min(ledger.lease_seconds / 3, LONGEST_INTERVAL_SECONDS)
        self._facts: dict[str, Any] = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "device": device,
            "device_name": device_name,
            "queues": ",".join(queue.value for queue in WorkQueue if queue in ledger.queues),
            "engines": sorted(ENGINES) if WorkQueue.GPU in ledger.queues else [],
            "version": server_version(),
        }
        self._ended = threading.Event()
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._run,), name="registration", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Take the row away, unless the database is away itself. Also when it was never started."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def beat(self) -> None:
        """Say that the worker lives. Raises Unavailable when the database is away."""
        with self._ledger.database.write() as session:
            if not worker_queries.beat(session, name=self._ledger.worker):
                worker_queries.register(session, name=self._ledger.worker, facts=self._facts)

    def _run(self) -> None:
        is_heard = True
        while not self._ended.is_set():
            try:
                self.beat()
                is_heard = True
            except RegenError as error:
                # Of an outage the heartbeat and the sweeper tell enough.
                if is_heard:
                    log.warning("registration_failed", error=error.message, detail=error.detail)
                is_heard = False
            except Exception:
                log.exception("registration_failed")
            self._ended.wait(self._interval_seconds)
        try:
            with self._ledger.database.write() as session:
                worker_queries.remove(session, name=self._ledger.worker)
        except RegenError as error:
            log.warning("registration_failed", error=error.message, detail=error.detail)
