"""What Prometheus reads from the API."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from sqlalchemy import update

from app.renders.tables import Render, Segment
from app.work.speeds import note_segment
from tests.servers.process import wait_until
from tests.servers.promtool import run_tests, series_of

# A sample's name, and its labels as they are written.
Samples = dict[tuple[str, str], float]


def read(client: httpx.Client, **headers: str) -> Samples:
    response = client.get("/metrics", headers=headers)
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {
        (
            sample.name,
            ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items())),
        ): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


@pytest.fixture(autouse=True)
def _always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.http.health_checks.FIGURES_FRESH_SECONDS", 0.0)
    monkeypatch.setattr("app.http.health_checks.FIGURES_REST_FACTOR", 0.0)


def test_requests_are_counted(client, clip):
    size = clip.stat().st_size
    with clip.open("rb") as content:
        client.post("/v1/files", files={"file": content})
    for path in ("/v1/files/a", "/v1/files/b", "/no/such", "/other"):
        client.get(path)
    client.request("BREW", "/no/such")

    # A request is counted after its answer has gone out.
    wait_until(
        lambda: ("regen_http_requests_total", "method=other,route=unmatched,status=404") in read(client),
        seconds=20,
        what="the last request is counted",
    )
    samples = read(client)

    requests = "regen_http_requests_total"
    assert samples[requests, "method=POST,route=/v1/files,status=200"] == 1
    assert samples[requests, "method=GET,route=/v1/files/{file_id},status=404"] == 2
    assert samples[requests, "method=GET,route=unmatched,status=404"] == 2
    seconds = "regen_http_request_seconds"
    assert samples[f"{seconds}_count", "method=GET,route=/v1/files/{file_id}"] == 2
    assert samples[f"{seconds}_bucket", "le=600.0,method=POST,route=/v1/files"] == 1
    assert samples[f"{seconds}_sum", "method=POST,route=/v1/files"] > 0
    assert samples["regen_http_requests_in_progress", ""] == 1, "the scrape itself"
    assert size < samples["regen_upload_bytes_total", ""] < size + 1000
    assert any(name == "process_resident_memory_bytes" for name, _labels in samples)
    assert [value for (name, _labels), value in samples.items() if name == "regen_build_info"] == [1]


def test_all_figures_are_there_from_the_start(stranger):
    samples = read(stranger)

    for status in ("queued", "pending", "processing", "completed", "failed"):
        assert samples["regen_renders", f"status={status}"] == 0
    for name in ("work_waiting", "work_running", "work_oldest_waiting_seconds", "queue_messages"):
        for queue in ("cpu", "gpu"):
            assert samples[f"regen_{name}", f"queue={queue}"] == 0
    for part in ("database", "migrations", "storage", "broker"):
        assert samples["regen_part_up", f"part={part}"] == 1


def test_renders_and_work(client, clip, database):
    with clip.open("rb") as content:
        file_id = client.post("/v1/files", files={"file": content}).json()["file"]["id"]
    ids = [client.post("/v1/upscale", json={"file_id": file_id}).json()["render"]["id"] for _time in range(8)]
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    lease = datetime.now(UTC) + timedelta(hours=1)

    def segment(render_id: str, position: int, status: str) -> Segment:
        return Segment(
            id=f"{render_id}-{position}", render_id=render_id, position=position, status=status,
            created_at=long_ago if position else datetime.now(UTC), plan="", frames=1,
        )  # fmt: skip

    with database.write() as session:
        # Two wait to be prepared, one of them after a failure.
        move(session, ids[1], status="pending", created_at=long_ago)
        move(session, ids[2], status="pending", lease_expires_at=lease)
        # One is being upscaled, one waits for its finish since it was made, one is being finished.
        for render_id in ids[3:6]:
            move(session, render_id, status="processing", created_at=long_ago - timedelta(hours=1))
        move(session, ids[5], lease_expires_at=lease)
        move(session, ids[6], status="completed")
        move(session, ids[7], status="failed")
        session.add_all(
            segment(ids[3], position, status)
            for position, status in enumerate(("waiting", "waiting", "running", "done"))
        )
        session.add_all(segment(render_id, 0, "done") for render_id in ids[4:6])

    samples = read(client)

    statuses = ("queued", "pending", "processing", "completed", "failed")
    assert [samples["regen_renders", f"status={status}"] for status in statuses] == [1, 2, 3, 1, 1]
    assert samples["regen_work_waiting", "queue=cpu"] == 3
    assert samples["regen_work_running", "queue=cpu"] == 2
    assert samples["regen_work_waiting", "queue=gpu"] == 2
    assert samples["regen_work_running", "queue=gpu"] == 1
    for queue in ("cpu", "gpu"):
        assert 3600 <= samples["regen_work_oldest_waiting_seconds", f"queue={queue}"] < 3700
    assert samples["regen_queue_messages", "queue=cpu"] > 0


def move(session, render_id: str, **values: object) -> None:
    session.execute(update(Render).where(Render.id == render_id).values(**values))


def test_the_token(serve, settings, key):
    client = serve(settings.model_copy(update={"metrics_token": SecretStr("tokén-for-prometheus")}), key=key)
    token = "Bearer tokén-for-prometheus".encode()

    for header in (
        None,
        b"",
        b"Bearer",
        b"Bearer wrong",
        b"Basic " + token[7:],
        token + b"x",
        f"Bearer {key}",
    ):
        response = client.get("/metrics", headers={"Authorization": header} if header is not None else {})
        assert response.status_code == 401
        assert response.json() == {"errors": [{"message": "A valid metrics token is required."}]}
        assert "regen_" not in response.text
    assert client.get("/metrics", headers={"Authorization": token}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "regen.example.com"},
        {"X-Forwarded-For": "127.0.0.1"},
        {"Forwarded": "for=127.0.0.1"},
        {"X-Real-IP": "127.0.0.1"},
        {"Via": "1.1 proxy"},
    ],
)
def test_without_a_token_only_this_machine_reads_them(serve, settings, key, stranger, headers):
    assert stranger.get("/metrics").status_code == 200
    refused = stranger.get("/metrics", headers=headers)
    assert refused.status_code == 403
    assert "REGEN_METRICS_TOKEN" in refused.json()["errors"][0]["message"]
    assert "regen_" not in refused.text


def test_metrics_can_be_open(serve, settings, key):
    client = serve(settings.model_copy(update={"metrics_open": True}), key=key)
    assert client.get("/metrics", headers={"Host": "regen.example.com"}).status_code == 200


def test_two_applications_in_one_process_count_apart(serve, settings, key, server):
    other = serve(settings, key=key)
    other.get("/v1/engines")
    wait_until(
        lambda: ("regen_http_requests_total", "method=GET,route=/v1/engines,status=200") in read(other),
        seconds=20,
        what="the request is counted",
    )

    with httpx.Client(base_url=server) as client:
        samples = read(client)

    assert not [labels for name, labels in samples if name.startswith("regen_http") and "engines" in labels]


def test_the_documented_queries_scale_on_the_work_that_remains(client, clip, database, tmp_path: Path):
    """As Prometheus evaluates them over what two API processes show."""
    with clip.open("rb") as content:
        render = client.post("/v1/upscale", files={"file": content}).json()["render"]
    pixels = render["input"]["width"] * render["input"]["height"] * render["input"]["frames"]
    assert (
        read(client)["regen_work_remaining_seconds", "device=unmeasured,engine=regen-4x-lite"] == pixels / 1e6
    )
    # Two kinds of device, one much slower; 1,500 and 15,000 seconds of work.
    for device, seconds in (("NVIDIA L4", 1500), ("CPU", 15_000)):
        note_segment(database, device=device, engine="regen-4x-lite", pixels=pixels, seconds=seconds)
    wait_until(
        lambda: ("regen_work_remaining_seconds", "device=CPU,engine=regen-4x-lite") in read(client),
        seconds=20,
        what="the speeds are read",
    )
    scraped = client.get("/metrics").text
    page = (Path(__file__).parents[3] / "docs" / "cluster.md").read_text()
    replicas = re.search(r"```promql\n(.+)\n```", page)
    keda = re.search(r"query: (sum.+)", page)
    threshold = re.search(r'threshold: "(\d+)"', page)
    assert replicas and keda and threshold
    series = [
        {**one, "series": one["series"].replace("{", f'{{instance="{instance}",', 1)}
        for one in series_of(scraped)
        if one["series"].startswith("regen_work_remaining_seconds")
        for instance in "ab"
    ]
    assert len(series) == 4
    expected = {replicas[1]: 3, keda[1]: 1500, f"ceil(({keda[1]}) / {threshold[1]})": 3}
    run_tests(
        tmp_path,
        [
            {
                "interval": "1m",
                "input_series": series,
                "promql_expr_test": [
                    {"expr": expr, "eval_time": "5m", "exp_samples": [{"labels": "{}", "value": value}]}
                    for expr, value in expected.items()
                ],
            }
        ],
    )
