"""A worker's metrics, and the server of `/metrics` in the format of Prometheus.

Labels have few values: kinds, outcomes, engines and devices, never ids.
"""

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import structlog
from prometheus_client import Counter, Gauge, Histogram, start_http_server

from app.platform.errors import ConfigurationError
from app.platform.metrics import server_version
from app.platform.settings import Settings
from app.platform.work_kinds import WorkKind, WorkQueue
from app.work.loop import UnitOutcome, WorkObserver
from app.work.queries import Claim
from models.catalog import ENGINES

SECONDS_BUCKETS = (0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600)

UNITS = Counter("regen_work_units_total", "Units of work by outcome.", ["kind", "outcome"])
UNIT_SECONDS = Histogram(
    "regen_work_seconds", "Time for which units of work were in hand.", ["kind"], buckets=SECONDS_BUCKETS
)
FRAMES = Counter("regen_frames_upscaled_total", "Upscaled source frames.", ["engine", "device"])
INPUT_PIXELS = Counter("regen_input_pixels_total", "Pixels of these frames.", ["engine", "device"])
OUTPUT_PIXELS = Counter("regen_output_pixels_total", "Pixels of their results.", ["engine", "device"])
UPSCALING_SECONDS = Counter("regen_upscaling_seconds_total", "Time spent on segments.", ["engine", "device"])
INPUT_BYTES = Counter(
    "regen_input_bytes_fetched_total",
    "Bytes of inputs that this worker fetched from the storage: of whole files, or ranges of files.",
    ["what"],
)
PREVIEWS = Counter("regen_previews_total", "Previews by outcome.", ["engine", "outcome"])
LEASE_LOSSES = Counter(
    "regen_lease_losses_total", "Units of work that this worker lost while in hand.", ["kind"]
)
LEASES_EXPIRED = Counter(
    "regen_leases_expired_total", "Units of work that this worker took from silent workers.", ["kind"]
)
HEARTBEAT_FAILURES = Counter("regen_heartbeat_failures_total", "Heartbeats that did not reach the database.")
SWEEP_FAILURES = Counter("regen_sweep_failures_total", "Failed rounds of the sweeper.")
QUARANTINED = Gauge(
    "regen_worker_quarantined", "1 while this worker claims nothing because its units failed, else 0."
)
DISK_FREE = Gauge("regen_work_disk_free_bytes", "Free bytes of the disk for work.")
DISK_SIZE = Gauge("regen_work_disk_size_bytes", "The size of that disk.")
BUSY = Gauge("regen_worker_busy", "1 while this worker has a unit of work in hand, else 0.")
WORKER = Gauge(
    "regen_worker_info",
    "1, with labels that describe this worker.",
    ["worker", "device", "queues", "version", "ffmpeg", "torch", "driver"],
)

log = structlog.get_logger(__name__)


class UnitMetrics(WorkObserver):
    """Counts and times the units of this worker's loop."""

    def __init__(self, *, on_quarantine: Callable[[str], None] = lambda _reason: None) -> None:
        self._on_quarantine = on_quarantine
        self._lock = threading.Lock()
        self._in_hand = 0

    def quarantined(self, reason: str) -> None:
        self._on_quarantine(reason)

    @contextmanager
    def unit(self, claim: Claim) -> Iterator[None]:
        self._count(1)
        started = time.monotonic()
        try:
            yield
        finally:
            UNIT_SECONDS.labels(claim.kind.value).observe(time.monotonic() - started)
            self._count(-1)

    def _count(self, more: int) -> None:
        with self._lock:
            self._in_hand += more
            BUSY.set(min(1, self._in_hand))

    def unit_ended(self, claim: Claim, outcome: UnitOutcome) -> None:
        UNITS.labels(claim.kind.value, outcome.value).inc()
        if outcome is UnitOutcome.LEASE_LOST:
            LEASE_LOSSES.labels(claim.kind.value).inc()

    def heartbeat_failed(self) -> None:
        HEARTBEAT_FAILURES.inc()


def start_at_zero(settings: Settings, *, device: str) -> None:
    """Initializes every series of this worker: Prometheus does not see the growth of a series that was absent."""
    for what in ("whole", "ranges"):
        INPUT_BYTES.labels(what)
    for kind in WorkKind:
        # The sweeper gives back work of every kind.
        LEASES_EXPIRED.labels(kind.value)
        if kind.queue in settings.queues:
            UNIT_SECONDS.labels(kind.value)
            LEASE_LOSSES.labels(kind.value)
            for outcome in UnitOutcome:
                UNITS.labels(kind.value, outcome)
    if WorkQueue.GPU in settings.queues:
        for engine in settings.engines or ENGINES:
            for outcome in UnitOutcome:
                PREVIEWS.labels(engine, outcome)
            for counter in (FRAMES, INPUT_PIXELS, OUTPUT_PIXELS, UPSCALING_SECONDS):
                counter.labels(engine, device)


class SegmentMeter:
    """Counts the frames, pixels and seconds of one segment while it is upscaled."""

    def __init__(self, *, engine: str, device: str, input_pixels: int, output_pixels: int) -> None:
        """`input_pixels` and `output_pixels` are those of one frame."""
        self._labels = (engine, device)
        self._input_pixels = input_pixels
        self._output_pixels = output_pixels
        self._frames_done = 0
        self._counted_until: float | None = None

    def progress(self, frames_done: int, *, since: float) -> None:
        """Reports the number of frames upscaled since that time, by the monotonic clock."""
        frames, self._frames_done = frames_done - self._frames_done, frames_done
        FRAMES.labels(*self._labels).inc(frames)
        INPUT_PIXELS.labels(*self._labels).inc(frames * self._input_pixels)
        OUTPUT_PIXELS.labels(*self._labels).inc(frames * self._output_pixels)
        now = time.monotonic()
        UPSCALING_SECONDS.labels(*self._labels).inc(now - max(since, self._counted_until or since))
        self._counted_until = now


@contextmanager
def metrics_endpoint(
    settings: Settings, *, worker: str, device: str, software: Mapping[str, str]
) -> Iterator[None]:
    """Serves `/metrics` within the block, if the settings name a port. Raises ConfigurationError if it is taken."""
    queues = ",".join(queue.value for queue in settings.queues)
    WORKER.labels(worker=worker, device=device, queues=queues, version=server_version(), **software).set(1)
    DISK_FREE.set_function(lambda: shutil.disk_usage(settings.work_dir).free)
    DISK_SIZE.set_function(lambda: shutil.disk_usage(settings.work_dir).total)
    start_at_zero(settings, device=device)
    if settings.worker_metrics_port is None:
        yield
        return
    host = settings.worker_metrics_host
    try:
        server, thread = start_http_server(settings.worker_metrics_port, addr=host)
    except OSError as error:
        raise ConfigurationError(
            f"A worker's metrics cannot be served on port {settings.worker_metrics_port} of {host}: {error.strerror}. "
            "Choose another with --metrics-port or REGEN_WORKER_METRICS_PORT."
        ) from error
    log.info("metrics_served", host=host, port=server.server_port)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
