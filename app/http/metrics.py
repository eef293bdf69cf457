"""The API's metrics: those of its requests, and those read from database and broker at each scrape."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from prometheus_client import (
    PLATFORM_COLLECTOR,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from app.estimates.remaining import RemainingWork
from app.http.health_checks import Measurements, Part, PartState
from app.http.spool_space import SpoolSpace
from app.platform.deliveries import Backlog
from app.platform.metrics import server_version
from app.platform.work_kinds import WorkQueue
from app.renders.statuses import RenderStatus
from app.work.queue_metrics import QueueMetrics, WorkMetrics
from app.work.workers import WorkerStatus, Workforce

# Uploads and downloads take minutes.
REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)

# Of several API processes: the start of the files of gauges that end with their process, and what is summed of each.
LIVE_GAUGES = "gauge_livesum_"
SUMMED_OF_PROCESSES = ("process_cpu_seconds", "process_resident_memory_bytes", "process_virtual_memory_bytes")

webhook_attempts = Counter(
    "regen_webhook_attempts", "This process' attempts to send an event to a webhook's receiver.", ("outcome",)
)
destination_attempts = Counter(
    "regen_destination_attempts",
    "This process' attempts to send a result to its render's destination.",
    ("outcome",),
)
for _outcome in ("delivered", "failed"):
    webhook_attempts.labels(outcome=_outcome)
    destination_attempts.labels(outcome=_outcome)


class HttpMetrics:
    """The metrics of one application's requests, in their own registry: a process may have several applications.

    `shared_dir`: the directory of prometheus_client's multiprocess mode, if this is one of several API processes.
    """

    def __init__(self, *, shared_dir: Path | None = None) -> None:
        self.shared_dir = shared_dir
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "regen_http_requests",
            "Answered requests. Status 499: the client disconnected before the answer began.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "regen_http_request_seconds",
            "Time from a request's head to the end of its answer.",
            ("method", "route"),
            buckets=REQUEST_SECONDS,
            registry=self.registry,
        )
        self.in_progress = Gauge(
            "regen_http_requests_in_progress",
            "Requests whose answer is not complete.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.event_streams = Gauge(
            "regen_event_streams",
            "Open event streams.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.upload_bytes = Counter(
            "regen_upload_bytes",
            "Bytes of request bodies, counted as they arrive, whatever the outcome.",
            registry=self.registry,
        )
        build = Gauge(
            "regen_build_info", "Always 1.", ("version",), registry=self.registry, multiprocess_mode="livemax"
        )
        build.labels(version=server_version()).set(1)


class MeasurementsCollector(Collector):
    """Set the counts and the states of the parts, as just read. Unknown counts are left out."""

    def __init__(self, *, parts: Mapping[Part, PartState], figures: Measurements, spool: SpoolSpace) -> None:
        self._parts = parts
        self._figures = figures
        self._spool = spool

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("regen_part_up", "1 when the API can use this part, else 0.", labels=("part",))
        for part, state in self._parts.items():
            up.add_metric((part.value,), float(state is PartState.OK))
        yield up
        yield GaugeMetricFamily(
            "regen_spool_free_bytes",
            "Bytes of this process' spool disk that uploads may take.",
            self._spool.free_bytes,
        )
        if self._figures.work is not None:
            yield from _work_families(self._figures.work)
        if self._figures.remaining is not None:
            yield _remaining_family(self._figures.remaining)
        if self._figures.webhooks is not None:
            yield from _backlog_families("webhooks", "Webhook deliveries", self._figures.webhooks)
        if self._figures.destinations is not None:
            yield from _backlog_families(
                "destinations", "Deliveries of results to destinations", self._figures.destinations
            )
        if self._figures.workers is not None:
            yield _worker_family(self._figures.workers)
        if self._figures.messages is not None:
            yield _by_queue("regen_queue_messages", "Wake-ups in the broker.", self._figures.messages)


class _Together(Collector):
    def __init__(self, *collectors: Collector) -> None:
        self._collectors = collectors

    def collect(self) -> Iterator[Metric]:
        for collector in self._collectors:
            yield from collector.collect()


def exposition(metrics: HttpMetrics, snapshot: MeasurementsCollector) -> bytes:
    """All metrics in Prometheus' text format 0.0.4, those of the process included; of several API processes, the
    sums."""
    if metrics.shared_dir is None:
        return generate_latest(_Together(metrics.registry, snapshot, REGISTRY))
    together = MultiProcessCollector(None, str(metrics.shared_dir))  # type: ignore[no-untyped-call]
    return generate_latest(
        _Together(together, snapshot, _ApiProcesses(metrics.shared_dir), PLATFORM_COLLECTOR)
    )


class _ApiProcesses(Collector):
    """What the living API processes use, in sum: each has a file of gauges."""

    def __init__(self, shared_dir: Path) -> None:
        self._shared_dir = shared_dir

    def collect(self) -> Iterator[Metric]:
        sums: dict[str, Metric] = {}
        for path in self._shared_dir.glob(f"{LIVE_GAUGES}*.db"):
            pid = path.stem.removeprefix(LIVE_GAUGES)
            for family in ProcessCollector(pid=partial(str, pid), registry=None).collect():
                if family.name in SUMMED_OF_PROCESSES:
                    kept = sums.setdefault(
                        family.name, Metric(family.name, family.documentation, family.type)
                    )
                    kept.samples.extend(family.samples)
        for family in sums.values():
            [name] = {sample.name for sample in family.samples}
            family.samples = [Sample(name, {}, sum(sample.value for sample in family.samples))]
            yield family


def _work_families(work: WorkMetrics) -> Iterator[Metric]:
    renders = GaugeMetricFamily("regen_renders", "Renders in each status.", labels=("status",))
    for status in RenderStatus:
        renders.add_metric((status.value,), work.renders[status])
    yield renders
    queues: Mapping[WorkQueue, QueueMetrics] = work.queues
    yield _by_queue(
        "regen_work_waiting",
        "Units of work that no worker holds.",
        {queue: figures.waiting for queue, figures in queues.items()},
    )
    yield _by_queue(
        "regen_work_running",
        "Units of work in a worker's hands.",
        {queue: figures.running for queue, figures in queues.items()},
    )
    yield _by_queue(
        "regen_work_oldest_waiting_seconds",
        "Age of the oldest waiting segment (gpu), of the oldest render waiting to be prepared (cpu).",
        {queue: figures.oldest_seconds for queue, figures in queues.items()},
    )


def _backlog_families(name: str, what: str, backlog: Backlog) -> Iterator[Metric]:
    yield GaugeMetricFamily(f"regen_{name}_waiting", f"{what} that have not ended.", backlog.waiting)
    yield GaugeMetricFamily(
        f"regen_{name}_overdue_seconds",
        "How long one of them has been due; 0 when dispatchers keep up.",
        backlog.overdue_seconds,
    )


def _remaining_family(remaining: Sequence[RemainingWork]) -> Metric:
    family = GaugeMetricFamily(
        "regen_work_remaining_seconds",
        "Waiting and running upscaling, in seconds of one worker with such a device.",
        labels=("engine", "device"),
    )
    for work in remaining:
        family.add_metric((work.engine, work.device), work.seconds)
    return family


def _worker_family(workforce: Workforce) -> Metric:
    family = GaugeMetricFamily("regen_workers", "Workers that are alive.", labels=("status",))
    for status in WorkerStatus:
        family.add_metric((status.value,), workforce.by_status[status])
    return family


def _by_queue(name: str, documentation: str, values: Mapping[WorkQueue, float]) -> Metric:
    family = GaugeMetricFamily(name, documentation, labels=("queue",))
    for queue, value in values.items():
        family.add_metric((queue.value,), value)
    return family
