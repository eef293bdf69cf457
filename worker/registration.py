"""A worker's row in the table of workers: added at its start, kept fresh while it lives, removed at its end."""

import os
import secrets
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from sqlalchemy.orm import Session

from app.engines.service import report_engines
from app.platform.errors import RegenError
from app.platform.metrics import server_version
from app.platform.progress import Progress, Stillness
from app.platform.threads import background_thread
from app.platform.work_kinds import WorkQueue
from app.work import worker_queries
from app.work.ledger import WorkLedger
from app.work.worker_queries import SILENT_LEASES
from app.work.worker_standing import standing_of
from models.catalog import ENGINES, Engine

LONGEST_INTERVAL_SECONDS = 5.0
LONGEST_NAME = 100
RANDOM_BYTES = 3
# An empty list of engines means all.
NO_ENGINE = ""

log = structlog.get_logger(__name__)


def worker_name() -> str:
    """Returns a name that no other process has or had: in containers host names and process ids repeat."""
    mark = f"-{os.getpid()}-{secrets.token_hex(RANDOM_BYTES)}"
    return socket.gethostname()[: LONGEST_NAME - len(mark)] + mark


class Registration:
    """A thread that reports that the worker lives.

    Claims themselves record the worker's work in hand. Nothing depends on the row: during an outage of the
    database the thread keeps trying, and the worker continues to work.
    """

    def __init__(
        self,
        ledger: WorkLedger,
        *,
        device: str,
        device_name: str | None = None,
        work: Progress | None = None,
        added_engines: Callable[[], Mapping[str, Engine]] = dict,
        serve: Callable[[tuple[str, ...]], None] = lambda _: None,
    ) -> None:
        """The speed of such devices is kept under `device_name`; None for a worker without a device.

        `work`: the progress of the worker's units, for how long they have stalled. `added_engines` are those of this
        machine now, by id; `serve` takes the ids of the engines that the worker may serve, whenever they change.
        """
        self._added_engines, self._serve = added_engines, serve
        self._refused: list[str] = []
        self._served: tuple[str, ...] | None = None
        self._built_in = tuple(engine for engine in ledger.engines or ENGINES if engine in ENGINES)
        self._ledger = ledger
        self._interval_seconds = min(ledger.lease_seconds / 3, LONGEST_INTERVAL_SECONDS)
        self._facts: dict[str, Any] = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "machine": ledger.machine,
            "device": device,
            "device_name": device_name,
            "queues": ",".join(queue.value for queue in WorkQueue if queue in ledger.queues),
            "engines": sorted(self._built_in) if WorkQueue.GPU in ledger.queues else [],
            "precisions": list(ledger.precisions) or None,
            "measures_vmaf": ledger.measures_vmaf,
            "version": server_version(),
        }
        self.is_drained = False
        """Whether the row was drained at the last heartbeat."""
        self.progress = Progress()
        self._work = Stillness(work or Progress())
        self._ended = threading.Event()
        self._reported = threading.Event()
        self._thread = background_thread(self._run, name="registration")

    def add_facts(self, **facts: Any) -> None:
        """Further columns of the row, which must be set before `start`."""
        self._facts |= facts

    def start(self) -> None:
        """Returns after the first report, before which the worker knows no others: it must claim nothing until then."""
        self._thread.start()
        self._reported.wait(self._interval_seconds)

    def stop(self) -> None:
        """Removes the row, unless the database is unavailable. Does nothing when the thread was never started."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def beat(self) -> None:
        """Reports that the worker lives. Raises Unavailable when the database is unreachable."""
        still_seconds = self._work.seconds
        with self._ledger.database.write() as session:
            if not worker_queries.beat(session, name=self._ledger.worker, still_seconds=still_seconds):
                worker_queries.register(session, name=self._ledger.worker, facts=self._facts)
            if WorkQueue.GPU in self._ledger.queues:
                self._report_engines(session)
                self._ledger.left_to_others = worker_queries.left_to_others(
                    session,
                    name=self._ledger.worker,
                    precisions=self._ledger.precisions,
                    lacked_codecs=self._ledger.lacked_codecs,
                    measures_vmaf=self._ledger.measures_vmaf,
                    silent_for=SILENT_LEASES * self._ledger.lease_seconds,
                )
            self.is_drained = standing_of(session, name=self._ledger.worker).is_drained

    def _report_engines(self, session: Session) -> None:
        """Reports the added engines of this machine, and serves those of which no other worker has other weights."""
        added = self._added_engines()
        if not added and self._served is None:
            return
        silent_for = SILENT_LEASES * self._ledger.lease_seconds
        served = tuple(report_engines(session, added.values(), silent_for=silent_for))
        refused = sorted(added.keys() - set(served))
        if refused != self._refused:
            log.warning("engines_differ", engines=refused)
            self._refused = refused
        if served == self._served:
            return
        self._facts["engines"] = sorted([*self._built_in, *served])
        worker_queries.update_engines(session, name=self._ledger.worker, engines=self._facts["engines"])
        self._serve((*self._built_in, *served) or (NO_ENGINE,))
        self._served = served
        log.info("engines_served", engines=list(served))

    def _run(self) -> None:
        is_heard = True
        while not self._ended.is_set():
            self.progress.beat()
            try:
                self.beat()
                is_heard = True
            except RegenError as error:
                # One line for each outage: heartbeat and sweeper log it too.
                if is_heard:
                    log.warning("registration_failed", error=error.message, detail=error.detail)
                is_heard = False
            except Exception:
                log.exception("registration_failed")
            self._reported.set()
            if not self._ended.wait(self._interval_seconds):
                self._work.tick(self._interval_seconds)
        try:
            with self._ledger.database.write() as session:
                worker_queries.remove(session, name=self._ledger.worker)
        except RegenError as error:
            log.warning("registration_failed", error=error.message, detail=error.detail)
