"""A worker process: its set-up, its signals, its end."""

import os
import signal
import socket
import threading
import warnings
from types import FrameType

import structlog
from celery import signals
from celery.exceptions import SecurityWarning
from celery.worker import state

from app.core.database import Database
from app.core.media.gates import work_gate
from app.core.media.limits import MediaLimits
from app.core.queue import WORK_QUEUE, WORK_TASK, make_celery, wake_workers
from app.core.secrets import Secrets
from app.core.services.work import WorkLedger
from app.core.settings import Settings
from app.core.storage import open_storage
from worker.networks import Networks
from worker.steps import Steps
from worker.sweeper import Sweeper
from worker.tasks import WorkTask
from worker.workspace import Workspace

EXIT_DEVICE_HANGS = 70

log = structlog.get_logger(__name__)


def run_worker(settings: Settings) -> int:
    """Work until SIGTERM or SIGINT, in this process and thread. Returns the exit status.

    CUDA does not survive a fork and one process drives one device, hence the solo pool: a task runs in the main
    thread, and the heartbeat, the sweeper and the watchdog in threads beside it. Raises ConfigurationError or
    FfmpegMissing when the machine lacks something.
    """
    database = Database(settings.resolved_database_url)
    storage = open_storage(settings, Secrets.load(settings))
    ledger = WorkLedger(
        database=database,
        worker=f"{socket.gethostname()}-{os.getpid()}",
        lease_seconds=settings.lease_seconds,
        max_attempts=settings.max_attempts,
    )
    networks = Networks(settings)
    networks.check()
    celery = make_celery(settings)
    draining = threading.Event()
    sweeper = Sweeper(ledger=ledger, celery=celery)

    def stop(exit_status: int) -> None:
        # Under the solo pool Celery's own warm shutdown waits for the task, which may take long. The task looks
        # at `draining` and gives its work back.
        draining.set()
        state.should_stop = exit_status

    workspace = Workspace(settings.work_dir, storage=storage, cache_bytes=settings.input_cache_bytes)
    task = WorkTask(
        ledger=ledger,
        steps=Steps(
            settings=settings,
            ledger=ledger,
            storage=storage,
            workspace=workspace,
            gate=work_gate(settings),
            limits=MediaLimits.from_settings(settings),
            networks=networks,
            give_up=_give_up,
        ),
        wake=lambda units: wake_workers(celery, units=units),
        draining=draining,
        stop=lambda: stop(os.EX_CONFIG),
    )
    celery.task(name=WORK_TASK)(task.__call__)

    def drain(_signal: int, _frame: FrameType | None) -> None:
        stop(os.EX_OK)

    def take_over_signals(**_: object) -> None:
        signal.signal(signal.SIGTERM, drain)
        signal.signal(signal.SIGINT, drain)
        sweeper.start()
        log.info("worker_ready", worker=ledger.worker)

    def keep_logging(**_: object) -> None:
        """Celery sets up logging itself unless somebody listens."""

    signals.setup_logging.connect(keep_logging, weak=False)
    signals.worker_ready.connect(take_over_signals, weak=False)
    # Celery warns of root because of pickled messages; ours carry nothing, and only JSON is read.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    try:
        worker = celery.Worker(
            hostname=f"regen@{ledger.worker}",
            pool="solo",
            concurrency=1,
            queues=[WORK_QUEUE],
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
            quiet=True,
        )
        worker.start()
        return int(worker.exitcode or os.EX_OK)
    finally:
        signals.worker_ready.disconnect(take_over_signals)
        signals.setup_logging.disconnect(keep_logging)
        draining.set()
        sweeper.stop()
        workspace.close()
        database.close()


def _give_up() -> None:
    log.critical("device_hangs")
    os._exit(EXIT_DEVICE_HANGS)
