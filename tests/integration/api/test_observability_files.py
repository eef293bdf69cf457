"""What is written for those who watch the server keeps step with the code: dashboard, alerts, and the page."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

import worker.metrics  # noqa: F401  (defines the workers' metrics)
from app.estimates.remaining import RemainingWork
from app.http.health_checks import Measurements, Part, PartState
from app.http.metrics import HttpMetrics, MeasurementsCollector
from app.http.spool_space import SpoolSpace
from app.platform.deliveries import Backlog
from app.platform.work_kinds import WorkQueue
from app.renders.statuses import RenderStatus
from app.work.queue_metrics import QueueMetrics, WorkMetrics
from app.work.workers import WorkerStatus, Workforce

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "observability.md"
DASHBOARD = ROOT / "docs" / "observability" / "grafana-dashboard.json"
ALERTS = ROOT / "docs" / "observability" / "prometheus-alerts.yml"
SCRAPING = ROOT / "docs" / "observability" / "prometheus.yml"

# Labels that Prometheus adds to every sample.
ADDED = frozenset({"job", "instance"})
AGGREGATIONS = frozenset({"sum", "max", "min", "count"})
FUNCTIONS = AGGREGATIONS | frozenset({"rate", "increase", "delta", "histogram_quantile", "scalar"})
WORDS = frozenset({"by", "and"})

SELECTOR = re.compile(r"\b([a-z_]+)(?:\{([^}]*)\})?(?=\[|\)|\s|$)")
EVENT = re.compile(r"""\blog\.(debug|info|warning|error|exception|critical)\(\s*"([a-z_]+)\"""")
LEVELS = {"exception": "error"}


def registered(registry: CollectorRegistry) -> Iterator[tuple[str, frozenset[str]]]:
    """Our metrics in a registry and their labels, also of those that have no values yet."""
    for collector in set(registry._collector_to_names):
        if isinstance(collector, Counter | Gauge | Histogram) and collector._name.startswith("regen_"):
            ending = "_total" if isinstance(collector, Counter) else ""
            yield collector._name + ending, frozenset(collector._labelnames)


@pytest.fixture(scope="module")
def metrics() -> dict[str, frozenset[str]]:
    """Every metric of ours and its labels."""
    queue = QueueMetrics(waiting=0, running=0, oldest_seconds=0)
    snapshot = MeasurementsCollector(
        parts=dict.fromkeys(Part, PartState.OK),
        figures=Measurements(
            work=WorkMetrics(renders=dict.fromkeys(RenderStatus, 0), queues=dict.fromkeys(WorkQueue, queue)),
            workers=Workforce(alive=0, stalled=0, by_status=dict.fromkeys(WorkerStatus, 0), unserved=()),
            remaining=[RemainingWork(engine="regen-4x", device="cpu", seconds=0.0)],
            webhooks=Backlog(waiting=0, overdue_seconds=0.0),
            destinations=Backlog(waiting=0, overdue_seconds=0.0),
            messages=dict.fromkeys(WorkQueue, 0),
        ),
        spool=SpoolSpace(ROOT, keep_free_bytes=0),
    )
    found = dict(registered(REGISTRY)) | dict(registered(HttpMetrics().registry))
    return found | {
        sample.name: frozenset(sample.labels) for family in snapshot.collect() for sample in family.samples
    }


def dashboard_expressions() -> list[tuple[str, str]]:
    """Every query of the dashboard, with its legend."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [
        (target["expr"], target["legendFormat"]) for panel in panels for target in panel.get("targets", ())
    ]


def alerts() -> list[dict]:
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    rules: list[dict] = group["rules"]
    return rules


def alert_texts(rule: dict) -> str:
    return " ".join(rule["annotations"].values())


def grouped_by(expression: str) -> frozenset[str]:
    groups = re.findall(r"\bby \(([^)]*)\)", expression)
    return frozenset(label.strip() for group in groups for label in group.split(","))


def used(expression: str) -> Iterator[tuple[str, frozenset[str]]]:
    """The metrics in a query and the labels that it names of each: in braces, and in all its `by (...)`."""
    # A scalar has no labels, whatever stands around it.
    for part in re.split(r"(?=\bscalar\()", expression):
        groups = frozenset() if part.startswith("scalar(") else grouped_by(part)
        bare = re.sub(r"\bby \([^)]*\)", "", part)
        for name, braces in SELECTOR.findall(bare):
            if name not in FUNCTIONS | WORDS:
                matched = re.findall(r'([a-z_]+)(?:=~|!~|!=|=)"', braces)
                yield name, groups | frozenset(matched)


def test_the_dashboard_is_whole():
    document = json.loads(DASHBOARD.read_text())

    assert document["title"] == "Regen" and document["schemaVersion"] >= 38
    (variable,) = document["templating"]["list"]
    assert (variable["type"], variable["query"]) == ("datasource", "prometheus")
    ids = [panel["id"] for panel in document["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in document["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken and place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
            assert {source["uid"] for source in sources} == {"${datasource}"}


def test_queries_use_metrics_and_labels_that_exist(metrics):
    queries = [expression for expression, _legend in dashboard_expressions()]
    queries += [rule["expr"] for rule in alerts()]

    for query in queries:
        found = list(used(query))
        assert found, query
        for name, labels in found:
            if name == "up":
                continue
            known = metrics.get(name)
            if known is None:
                # Of a histogram only its parts can be asked for.
                assert name.endswith(("_bucket", "_sum", "_count")), f"{name} in {query}"
                known = metrics[name.rpartition("_")[0]]
            if name.endswith("_bucket"):
                known |= {"le"}
            assert labels <= known | ADDED, f"{name} has no {labels - known}: {query}"


def test_texts_name_only_labels_that_their_query_keeps():
    texts = [(expression, legend, r"\{\{(\w+)\}\}") for expression, legend in dashboard_expressions()]
    texts += [(rule["expr"], alert_texts(rule), r"\$labels\.(\w+)") for rule in alerts()]
    for expression, text, pattern in texts:
        is_aggregated = any(re.search(rf"\b{function}\b", expression) for function in AGGREGATIONS)
        kept = grouped_by(expression) if is_aggregated else ADDED
        assert set(re.findall(pattern, text)) <= kept, text


def test_alerts_are_whole():
    names = [rule["alert"] for rule in alerts()]

    assert len(set(names)) == len(names)
    for rule in alerts():
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"].endswith(".")
    assert yaml.safe_load(SCRAPING.read_text())["rule_files"] == [ALERTS.name]


def table(heading: str) -> dict[str, list[str]]:
    """The rows of the page's table under that heading: the first cell's code words, each with the other cells."""
    section = PAGE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows: dict[str, list[str]] = {}
    for line in section.splitlines():
        if line.startswith("| `"):
            first, *others = (cell.strip() for cell in line.strip("|").split(" | "))
            for name in re.findall(r"`([^`]+)`", first):
                assert name not in rows, f"{name} stands there twice"
                rows[name] = others
    return rows


def test_the_page_lists_every_event_with_its_levels():
    events: dict[str, set[str]] = {}
    for room in ("app", "worker", "models"):
        for path in (ROOT / room).rglob("*.py"):
            for level, event in EVENT.findall(path.read_text()):
                events.setdefault(event, set()).add(LEVELS.get(level, level))

    # Written where the logger itself cannot be used, or for lines that are not ours.
    events |= {"log_line_failed": {"error"}, "library_line": {"any"}}
    listed = {event: set(cells[0].split(", ")) for event, cells in table("Events").items()}
    assert listed == events


def test_every_line_of_the_log_is_found_by_the_test_above():
    for room in ("app", "worker", "models"):
        for path in (ROOT / room).rglob("*.py"):
            text = path.read_text()
            calls = re.findall(r"\blog\.(?:debug|info|warning|error|exception|critical)\(", text)
            assert len(calls) == len(EVENT.findall(text)), path


def test_the_page_lists_every_metric_with_its_labels(metrics):
    rows = table("Metrics")

    assert {name: frozenset(re.findall(r"`(\w+)`", cells[0])) for name, cells in rows.items()} == metrics
