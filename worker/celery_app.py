"""A worker process: assembles its parts, handles its signals, and runs Celery's worker until it must end."""

import contextlib
import faulthandler
import logging
import math
import os
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import structlog
from celery import Celery, signals
from celery.exceptions import SecurityWarning
from celery.worker import state
from celery.worker.consumer import Consumer
from celery.worker.consumer.consumer import CONNECTION_ERROR

from app import migrations
from app.platform.database import Database
from app.platform.errors import RegenError, Unavailable
from app.platform.liveness import Liveness
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.limits import MediaLimits
from app.platform.progress import Progress, current_progress, reporting_to
from app.platform.queue import OLD_QUEUE, WORK_TASK, check_broker, make_celery, queue_name
from app.platform.settings import Settings
from app.platform.storage import open_storage
from app.platform.tracing import start_tracing, stop_tracing
from app.platform.work_kinds import WorkQueue
from app.previews.service import PreviewLedger
from app.serving.signals import STOP_SIGNALS
from app.work.drain import Drain
from app.work.ledger import WorkLedger
from app.work.loop import WorkLoop
from app.work.outage_retry import OutageRetry
from models.catalog import ENGINES
from worker.celery_presence import CeleryPresence
from worker.cleanup_job import CleanUpJob
from worker.deadman import END_SECONDS, Deadman
from worker.loaded_upscaler import Networks
from worker.machine_needs import Needs
from worker.metrics import UnitMetrics, metrics_endpoint
from worker.previews import Previewer
from worker.quarantine import Quarantine
from worker.registration import NO_ENGINE, Registration, worker_name
from worker.self_test import SelfTest
from worker.software_versions import lacked_codecs, software_versions
from worker.sweeper import Sweeper
from worker.video.vmaf import measures_vmaf
from worker.work_units import WorkUnits
from worker.workspace import Workspace

NO_DEVICE = "none"
CONSUMER_LOGGER = "celery.worker.consumer.consumer"
LONGEST_NAME = 100
TICK_SECONDS = 1.0
# Also for weights that are fetched and converted at the first start.
CHECK_SECONDS = 900
# The name of a worker's spans in traces.
TRACED_AS = "regen-worker"
# One segment computing, one claimed ahead, one being encoded, stored and reported.
MOST_IN_HAND = 3

log = structlog.get_logger(__name__)


def run_worker(settings: Settings) -> int:
    """Works until SIGTERM or SIGINT, in this process and thread. Returns the exit status.

    The first signal lets the work in hand be finished within REGEN_DRAIN_SECONDS; the second gives it back at once.
    Until the workspace is made, the caller handles signals. Waits for an unreachable broker. A worker that hangs ends
    with EXIT_HANGS (see Deadman). Raises ConfigurationError or FfmpegMissing when the machine lacks something.
    """
    name = worker_name()
    networks = Networks(settings)
    device = NO_DEVICE
    start_tracing(TRACED_AS)
    if WorkQueue.GPU in settings.queues:
        # A file system or a driver that hangs may hold up all threads: the end must not need one.
        faulthandler.dump_traceback_later(CHECK_SECONDS, exit=True)
        try:
            networks.check()
            device = networks.device
        finally:
            faulthandler.cancel_dump_traceback_later()
    # Bound here for the log lines of every thread that is started with a copy of this context.
    with structlog.contextvars.bound_contextvars(worker=name, device=device):
        worker = CeleryWorker(settings, name=name, device=device, networks=networks)
        try:
            exit_status = worker.run()
        finally:
            worker.close()
            stop_tracing()
            log.info("worker_stopped")
            # Other causes that keep the interpreter from ending.
            faulthandler.dump_traceback_later(END_SECONDS, exit=True)
        if worker.has_hanging_thread():
            # Python would wait for the thread of a hanging transfer, and abort because of a computing one.
            sys.stderr.flush()
            os._exit(exit_status)
        return exit_status


class CeleryWorker:
    """Celery's worker with our parts: the work loop as its one task, and threads beside it.

    CUDA does not survive a fork and one process drives one device, hence the solo pool: the task runs in the main
    thread, and heartbeat, sweeper, previews, clean-up and deadman in threads of their own.
    """

    def __init__(self, settings: Settings, *, name: str, device: str, networks: Networks) -> None:
        """Takes over the signals just before it makes the first thing that `close` removes, the workspace."""
        self._settings = settings
        self._name = name
        self._device = device
        self._database = Database.from_settings(settings)
        migrations.upgrade_existing(self._database)
        # A worker signs no URLs: on S3 it may know no secret at all.
        storage = open_storage(settings)
        ledger = WorkLedger(
            database=self._database,
            worker=name,
            lease_seconds=settings.lease_seconds,
            max_attempts=settings.max_attempts,
            max_running_segments=settings.max_running_segments_per_user,
            max_running_renders=settings.max_running_renders_per_user,
            queues=settings.queues,
            machine=settings.machine,
            # Added engines follow with the first report of the worker.
            engines=[one for one in settings.engines or ENGINES if one in ENGINES] or [NO_ENGINE],
        )
        self._celery = make_celery(settings)
        _try_broker(self._celery)
        self._presence: CeleryPresence | None = None
        self._drain = Drain(grace_seconds=settings.drain_seconds)
        self._progress = Progress()
        self._deadman = Deadman(
            stall_seconds=settings.stall_seconds, drain=self._drain, give_back=self._give_back
        )
        self._outage_retry = OutageRetry(
            seconds=settings.outage_patience_seconds, stall_seconds=settings.stall_seconds
        )
        self._sweeper = Sweeper(ledger=ledger, celery=self._celery)
        device_name = None if device == NO_DEVICE else networks.device_name
        self._clean_up_job = CleanUpJob(
            settings=settings, database=self._database, storage=storage, worker=name
        )
        # Celery checks `should_stop` before it begins, so a signal from here on is not lost.
        self._take_over_signals()
        self._workspace = Workspace(settings.work_dir, cache_bytes=settings.input_cache_bytes)
        self._deadman.touch = Liveness(self._workspace.path).touch
        runner = FfmpegRunner.for_work(settings)
        self._software = software_versions(runner)
        ledger.lacked_codecs = tuple(lacked_codecs(runner))
        ledger.measures_vmaf = WorkQueue.GPU in settings.queues and measures_vmaf(runner)
        ledger.precisions = tuple(networks.precisions) if WorkQueue.GPU in settings.queues else ()
        preview_ledger = PreviewLedger(
            database=self._database,
            worker=name,
            lease_seconds=settings.lease_seconds,
            max_attempts=settings.max_attempts,
            engines=ledger.engines,
        )

        def serve(engines: tuple[str, ...]) -> None:
            ledger.engines = preview_ledger.engines = engines

        self._registration = Registration(
            ledger,
            device=device,
            device_name=device_name,
            work=self._progress,
            added_engines=lambda: networks.added_engines,
            serve=serve,
        )
        self._registration.add_facts(
            software=dict(self._software),
            labels=list(settings.labels),
            lacked_codecs=list(ledger.lacked_codecs) or None,
        )
        self._previewer = Previewer(
            settings=settings,
            ledger=preview_ledger,
            storage=storage,
            runner=runner,
            outage_retry=self._outage_retry,
            drain=self._drain,
        )
        units = WorkUnits(
            settings=settings,
            ledger=ledger,
            storage=storage,
            workspace=self._workspace,
            runner=runner,
            limits=MediaLimits.from_settings(settings),
            networks=networks,
            outage_retry=self._outage_retry,
            drain=self._drain,
            wake=self._sweeper.announce,
            on_device_hang=lambda: self._deadman.end(lambda: log.critical("device_hangs")),
        )
        self._quarantine = Quarantine(
            ledger,
            drained=lambda: self._registration.is_drained,
            test=SelfTest(
                runner=runner,
                networks=networks,
                workspace=self._workspace,
                engines=networks.engines if WorkQueue.GPU in settings.queues else (),
            ).run,
            listen=self._listen,
            end=lambda: self._stop(os.EX_UNAVAILABLE, at_once=True),
        )
        self._previewer.may_claim = lambda: self._quarantine.may_claim
        needs = Needs(storage=storage, workspace=self._workspace, runner=runner)
        self._work_loop = WorkLoop(
            ledger=ledger,
            units=units.by_kind(),
            wake=self._sweeper.announce,
            drain=self._drain,
            outage_retry=self._outage_retry,
            stop=lambda: self._stop(os.EX_CONFIG, at_once=True),
            observer=UnitMetrics(on_quarantine=self._quarantine.begin),
            claim=lambda kinds: ledger.claim(kinds) if self._quarantine.may_claim else None,
            is_well=lambda: needs.are_met(self._outage_retry),
            # The deadman acts before, if it can.
            still_seconds=2 * self._deadman.still_seconds,
            most_in_hand=MOST_IN_HAND if WorkQueue.GPU in settings.queues else 1,
        )
        self._celery.task(name=WORK_TASK)(self._work_loop.__call__)

    def run(self) -> int:
        """Works until it is stopped. Returns the exit status."""
        signals.setup_logging.connect(_keep_logging, weak=False)
        logging.getLogger(CONSUMER_LOGGER).addFilter(reconnects_as_warnings)
        signals.worker_ready.connect(self._start_threads, weak=False)
        # Celery warns root of pickled messages; ours are empty, and only JSON is read.
        warnings.filterwarnings("ignore", category=SecurityWarning)
        worker = self._celery.Worker(
            hostname=f"regen@{self._name}",
            pool="solo",
            concurrency=1,
            queues=[*map(queue_name, self._settings.queues), OLD_QUEUE],
            consumer_cls=partial(TolerantConsumer, on_tick=self._on_tick),
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
            quiet=True,
        )
        # Celery's own handlers would wait for the task in hand, and start a new worker on SIGHUP.
        worker.install_platform_tweaks = self._take_over_signals
        self._deadman.watch("work", self._progress)
        self._deadman.start()
        # Only now: a worker that cannot work must not answer a health check.
        with (
            reporting_to(self._progress),
            metrics_endpoint(self._settings, worker=self._name, device=self._device, software=self._software),
        ):
            worker.start()
        return int(worker.exitcode or os.EX_OK)

    def close(self) -> None:
        signals.worker_ready.disconnect(self._start_threads)
        signals.setup_logging.disconnect(_keep_logging)
        self._drain.request(at_once=True)
        if self._presence is not None:
            self._presence.stop()
        self._previewer.stop()
        self._clean_up_job.stop()
        self._sweeper.stop()
        self._registration.stop()
        self._workspace.close()
        self._database.close()
        self._deadman.stop()

    def has_hanging_thread(self) -> bool:
        """Whether a transfer or a preview continues after `close`, in a thread that cannot be ended. Logs it."""
        if self._outage_retry.has_hanging_transfer:
            log.warning("transfer_left_hanging")
            return True
        if self._previewer.is_left_computing:
            log.warning("preview_left_computing")
            return True
        return False

    def _start_threads(self, sender: Consumer, **_: object) -> None:
        self._presence = CeleryPresence(self._celery, consumer=sender, shut_down=lambda: self._stop(os.EX_OK))
        self._presence.start()
        self._registration.start()
        self._deadman.watch("registration", self._registration.progress)
        self._sweeper.start()
        self._deadman.watch("sweeper", self._sweeper.progress)
        if WorkQueue.CPU in self._settings.queues:
            self._clean_up_job.start()
        if WorkQueue.GPU in self._settings.queues:
            self._previewer.start()
            self._deadman.watch("previews", self._previewer.progress)
        log.info("worker_ready", queues=[queue.value for queue in self._settings.queues])

    def _on_tick(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._quarantine.tick()

    def _listen(self, is_listening: bool) -> None:
        for queue in self._settings.queues:
            if is_listening:
                self._consumer.add_task_queue(queue_name(queue))
            else:
                # Otherwise it would take the messages that wake claiming workers.
                self._consumer.cancel_task_queue(queue_name(queue))
        if is_listening:
            self._sweeper.announce(Counter(self._settings.queues))

    def _give_back(self, is_hanging: bool) -> None:
        with contextlib.suppress(RegenError):  # then its lease expires
            self._work_loop.give_back(is_hanging)
        self._previewer.give_back(is_hanging)

    def _take_over_signals(self, _worker: object = None) -> None:
        for number in STOP_SIGNALS:
            # nohup makes the process ignore SIGHUP, which stays so.
            if signal.getsignal(number) is not signal.SIG_IGN or number != signal.SIGHUP:
                signal.signal(number, self._on_signal)

    def _on_signal(self, _signal: int, _frame: FrameType | None) -> None:
        self._stop(os.EX_OK)

    def _stop(self, exit_status: int, *, at_once: bool = False) -> None:
        # Under the solo pool Celery's own warm shutdown waits for the task, which may take long. The work loop watches
        # `drain` instead, and gives back what it cannot finish in time.
        self._drain.request(at_once=at_once)
        state.should_stop = exit_status


class TolerantConsumer(Consumer):  # type: ignore[misc]
    """Drops messages that it cannot parse, such as those of another version, with one log line each. Beats the
    progress of the thread that it runs in, and calls `on_tick` there every TICK_SECONDS while no task runs."""

    def __init__(self, *arguments: Any, on_tick: Callable[[Consumer], None], **options: Any) -> None:
        self._on_tick = on_tick
        super().__init__(*arguments, **options)

    def ensure_connected(self, conn: Any) -> Any:
        # It keeps asking during an outage of the broker, with its own time-outs.
        with current_progress().allowing(math.inf):
            return super().ensure_connected(conn)

    def register_with_event_loop(self, hub: Any) -> None:
        super().register_with_event_loop(hub)
        hub.call_repeatedly(TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        current_progress().beat()
        self._on_tick(self)

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


def _try_broker(celery: Celery) -> None:
    try:
        check_broker(celery)
    except Unavailable as error:
        log.warning("broker_awaited", error=error.message, detail=error.detail)


def reconnects_as_warnings(record: logging.LogRecord) -> bool:
    """A filter for the lines of Celery's consumer: a repeated attempt to reach the broker is a warning."""
    if record.msg == CONNECTION_ERROR:
        record.levelno, record.levelname = logging.WARNING, "WARNING"
    return True


def _keep_logging(**_: object) -> None:
    """Keeps Celery from configuring the logging, which it does when nothing is connected to the signal."""
