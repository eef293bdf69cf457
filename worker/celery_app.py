"""A worker process: its set-up, its signals, its end."""

import os
import signal
import sys
import warnings
from types import FrameType
from typing import Any

import structlog
from celery import signals
from celery.exceptions import SecurityWarning
from celery.worker import state
from celery.worker.consumer import Consumer

from app import migrations
from app.platform.database import Database
from app.platform.errors import Unavailable
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.limits import MediaLimits
from app.platform.queue import OLD_QUEUE, WORK_TASK, check_broker, make_celery, queue_name
from app.platform.secrets import Secrets
from app.platform.settings import Settings
from app.platform.storage import open_storage
from app.platform.work_kinds import WorkQueue
from app.previews.service import PreviewLedger
from app.work.drain import Drain
from app.work.ledger import WorkLedger
from app.work.loop import WorkLoop
from app.work.outage_retry import OutageRetry
from worker.cleanup_job import Caretaker
from worker.metrics import WorkMetrics, metrics_endpoint
from worker.networks import Networks
from worker.previews import Previewer
from worker.registration import Registration, worker_name
from worker.sweeper import Sweeper
from worker.work_units import WorkUnits
from worker.workspace import Workspace

EXIT_DEVICE_HANGS = 70
NO_DEVICE = "none"
LONGEST_NAME = 100

log = structlog.get_logger(__name__)


def run_worker(settings: Settings) -> int:
    """Work until SIGTERM or SIGINT, in this process and thread. Returns the exit status.

    Until there is something to tidy up, signals are the caller's. From then on the first lets the work in hand be
    finished within REGEN_DRAIN_SECONDS; at a second it is given back at once.

    CUDA does not survive a fork and one process drives one device, hence the solo pool: a task runs in the main
    thread, and the heartbeat, the sweeper and the watchdog in threads beside it. A broker that is away is waited
    for. Raises ConfigurationError or FfmpegMissing when the machine lacks something.
    """
    name = worker_name()
    networks = Networks(settings)
    device = NO_DEVICE
    if WorkQueue.GPU in settings.queues:
        networks.check()
        device = networks.device
    # For the lines of every thread that is started with this one's context.
    with structlog.contextvars.bound_contextvars(worker=name, device=device):
        return _consume(settings, name=name, device=device, networks=networks)


def _consume(settings: Settings, *, name: str, device: str, networks: Networks) -> int:
    database = Database.from_settings(settings)
    migrations.require_usable(database)
    # A worker signs no URLs: on S3 it may know no secret at all.
    storage = open_storage(settings, Secrets.load(settings) if settings.storage == "local" else None)
    ledger = WorkLedger(
        database=database,
        worker=name,
        lease_seconds=settings.lease_seconds,
        max_attempts=settings.max_attempts,
        max_running_segments=settings.max_running_segments_per_user,
        max_running_renders=settings.max_running_renders_per_user,
        queues=settings.queues,
    )
    celery = make_celery(settings)
    try:
        check_broker(celery)
    except Unavailable as error:
        log.warning("broker_awaited", error=error.message, detail=error.detail)
    drain = Drain(grace_seconds=settings.drain_seconds)
    outage_retry = OutageRetry(seconds=settings.outage_patience_seconds)
    sweeper = Sweeper(ledger=ledger, celery=celery)
    device_name = None if device == NO_DEVICE else networks.device_name
    registration = Registration(ledger, device=device, device_name=device_name)
    caretaker = Caretaker(settings=settings, database=database, storage=storage, worker=name)

    def stop(exit_status: int, *, at_once: bool = False) -> None:
        # Under the solo pool Celery's own warm shutdown waits for the task, which may take long. The task looks
        # at `drain`, and gives back what it cannot finish in time.
        drain.request(at_once=at_once)
        state.should_stop = exit_status

    def end(_signal: int, _frame: FrameType | None) -> None:
        stop(os.EX_OK)

    def take_over_signals(_worker: object = None) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            # nohup has SIGHUP ignored: leave that.
            if signal.getsignal(number) is not signal.SIG_IGN or number != signal.SIGHUP:
                signal.signal(number, end)

    # From here on there is something to tidy up. Celery looks at `should_stop` before it begins.
    take_over_signals()
    workspace = Workspace(settings.work_dir, cache_bytes=settings.input_cache_bytes)
    runner = FfmpegRunner.for_work(settings)
    previewer = Previewer(
        settings=settings,
        ledger=PreviewLedger(
            database=database,
            worker=name,
            lease_seconds=settings.lease_seconds,
            max_attempts=settings.max_attempts,
        ),
        storage=storage,
        runner=runner,
        outage_retry=outage_retry,
        drain=drain,
    )
    task = WorkLoop(
        ledger=ledger,
        units=WorkUnits(
            settings=settings,
            ledger=ledger,
            storage=storage,
            workspace=workspace,
            runner=runner,
            limits=MediaLimits.from_settings(settings),
            networks=networks,
            outage_retry=outage_retry,
            drain=drain,
            give_up=_give_up,
        ).by_kind(),
        wake=sweeper.announce,
        drain=drain,
        outage_retry=outage_retry,
        stop=lambda: stop(os.EX_CONFIG, at_once=True),
        observer=WorkMetrics(),
    )
    celery.task(name=WORK_TASK)(task.__call__)

    def begin(**_: object) -> None:
        registration.start()
        sweeper.start()
        if WorkQueue.CPU in settings.queues:
            caretaker.start()
        if WorkQueue.GPU in settings.queues:
            previewer.start()
        log.info("worker_ready", queues=[queue.value for queue in settings.queues])

    def keep_logging(**_: object) -> None:
        """Celery sets up logging itself unless somebody listens."""

    signals.setup_logging.connect(keep_logging, weak=False)
    signals.worker_ready.connect(begin, weak=False)
    # Celery warns of root because of pickled messages; ours carry nothing, and only JSON is read.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    try:
        worker = celery.Worker(
            hostname=f"regen@{name}",
            pool="solo",
            concurrency=1,
            queues=[*map(queue_name, settings.queues), OLD_QUEUE],
            consumer_cls=ForgivingConsumer,
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
            quiet=True,
        )
        # Its own handlers would wait for the task in hand, and start a new worker on SIGHUP.
        worker.install_platform_tweaks = take_over_signals
        # Only now: whoever asks it whether the worker is well shall not be answered by one that cannot work.
        with metrics_endpoint(settings, worker=name, device=device):
            worker.start()
        exit_status = int(worker.exitcode or os.EX_OK)
    finally:
        signals.worker_ready.disconnect(begin)
        signals.setup_logging.disconnect(keep_logging)
        drain.request(at_once=True)
        previewer.stop()
        caretaker.stop()
        sweeper.stop()
        registration.stop()
        workspace.close()
        database.close()
    if outage_retry.has_hanging_transfer or previewer.is_left_computing:
        # Python would wait for the threads of a transfer that hangs, and abort over one that computes.
        if outage_retry.has_hanging_transfer:
            log.warning("transfer_left_hanging")
        else:
            log.warning("preview_left_computing")
        sys.stderr.flush()
        os._exit(exit_status)
    return exit_status


class ForgivingConsumer(Consumer):  # type: ignore[misc]
    """Drops messages that it cannot understand, such as those of another version, with one line each."""

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        self._drop(message, reason="unknown task")

    def on_unknown_message(self, body: Any, message: Any) -> None:
        self._drop(message, reason="no task")

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        self._drop(message, reason="no valid task")

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        self._drop(message, reason="unreadable")

    def _drop(self, message: Any, *, reason: str) -> None:
        headers = message.headers if isinstance(message.headers, dict) else {}
        log.warning("message_dropped", reason=reason, task=str(headers.get("task"))[:LONGEST_NAME])
        message.ack_log_error(log, self.connection_errors)


def _give_up() -> None:
    log.critical("device_hangs")
    os._exit(EXIT_DEVICE_HANGS)
