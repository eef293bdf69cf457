"""Liveness and readiness, with every part failing in turn."""

import asyncio
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from sqlalchemy import insert, text

from app import migrations
from app.http.health_checks import PROBE_FRESH_SECONDS, Readiness
from app.http.spool_space import SpoolSpace
from app.platform.database import database_now
from app.platform.errors import DatabaseUnavailable
from app.platform.settings import Settings
from app.platform.work_kinds import WorkKind
from app.work.tables import WorkerProcess

ALL_WELL = {"database": "ok", "migrations": "ok", "storage": "ok", "broker": "ok"}
# No worker runs beside these servers.
READY = {"status": "ok", "warnings": ["No worker is running, so renders wait until one is started."]}
WITHOUT_WORKERS = {**READY, "parts": ALL_WELL, "workers": {"alive": 0, "stalled": 0}}
# Longer than any answer may take; nothing here says how fast the machine is.
TIMEOUT_SECONDS = 20


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow machine's database is in time."""
    monkeypatch.setattr("app.http.health_checks.GLANCE_SECONDS", TIMEOUT_SECONDS)


@pytest.fixture
def never_ready(serve, settings: Settings, key: str) -> Callable[..., list[str]]:
    """What /readyz answers from the start with these settings: 503, while the process lives on."""

    def ask(**changes: str) -> list[str]:
        client = serve(settings.model_copy(update=changes), key=key)
        assert client.get("/healthz").status_code == 200
        return refusal(client)

    return ask


def refusal(client: httpx.Client) -> list[str]:
    """One message for each reason."""
    response = client.get("/readyz", timeout=TIMEOUT_SECONDS)
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) > 0
    (*faults,) = response.json()["errors"]
    assert response.json() == {"errors": faults}, "nothing stands beside the errors"
    return [fault["message"] for fault in faults]


def parts(client: httpx.Client) -> dict[str, str]:
    """The state of the shared parts that are not well, told by a process that is ready."""
    response = client.get("/readyz?parts", timeout=TIMEOUT_SECONDS)
    assert response.status_code == 200, response.text
    return {part: state for part, state in response.json()["parts"].items() if state != "ok"}


def test_all_is_well(stranger):
    assert stranger.get("/healthz").json() == {"status": "ok"}
    response = stranger.get("/readyz")
    assert (response.status_code, response.json()) == (200, READY)
    for query in ("parts", "parts=", "parts=true"):
        assert stranger.get(f"/readyz?{query}").json() == WITHOUT_WORKERS


@pytest.mark.parametrize(
    ("unheard_seconds", "unit", "still_seconds", "body"),
    [
        (0, None, 0, {"status": "ok"}),
        (0, WorkKind.UPSCALE, 1, {"status": "ok"}),
        (3600, None, 0, READY),
        (
            0,
            WorkKind.UPSCALE,
            3600,
            {
                "status": "ok",
                "warnings": ["Workers that hold stalled work: 1. `regen workers` names them."],
            },
        ),
    ],
    ids=["idle", "at work", "dead", "stalled"],
)
def test_readiness_tells_of_workers(stranger, database, unheard_seconds, unit, still_seconds, body):
    with database.write() as session:
        session.execute(
            insert(WorkerProcess).values(
                name="worker",
                host="host",
                pid=1,
                device="cpu",
                queues="cpu,gpu",
                engines=[],
                version="1",
                started_at=database_now(),
                heartbeat_at=database_now(plus_seconds=-unheard_seconds),
                kind=unit,
                progress_at=database_now(plus_seconds=-still_seconds),
            )
        )
    response = stranger.get("/readyz")
    assert (response.status_code, response.json()) == (200, body)


@pytest.mark.parametrize("fault", ["hangs", "fails"])
def test_readiness_waits_for_no_database(stranger, monkeypatch: pytest.MonkeyPatch, fault: str):
    assert stranger.get("/readyz").json() == READY
    time.sleep(PROBE_FRESH_SECONDS)
    released, asked = threading.Event(), []

    def count_workers(*_arguments: object, **_named: object) -> None:
        asked.append(fault)
        if fault == "hangs":
            released.wait(TIMEOUT_SECONDS)
        raise DatabaseUnavailable("The database cannot be reached.", detail="in a test")

    monkeypatch.setattr("app.http.health_checks.GLANCE_SECONDS", 0.05)
    monkeypatch.setattr("app.http.health_checks.count_workers", count_workers)
    try:
        for _probe in range(3):
            response = stranger.get("/readyz", timeout=TIMEOUT_SECONDS / 4)
            assert (response.status_code, response.json()) == (200, {"status": "ok"})
        assert asked == [fault], "probes ask once, together"
    finally:
        released.set()


@pytest.mark.parametrize("hangs", [False, True])
def test_the_broker_is_away(
    serve, settings: Settings, key: str, tmp_path: Path, black_hole: int, hangs: bool
):
    url = f"redis://127.0.0.1:{black_hole}/0" if hangs else f"redis+socket://{tmp_path}/none.sock"
    client = serve(settings.model_copy(update={"broker_url": url, "broker_password": None}), key=key)
    assert client.get("/readyz", timeout=TIMEOUT_SECONDS).json() == READY
    assert parts(client) == {"broker": "failed"}
    assert 'regen_part_up{part="broker"} 0.0' in client.get("/metrics", timeout=TIMEOUT_SECONDS).text


def test_the_storage_is_gone(stranger, settings: Settings, logs):
    assert stranger.get("/readyz").json() == READY
    shutil.rmtree(settings.storage_dir)
    time.sleep(PROBE_FRESH_SECONDS)

    assert stranger.get("/readyz").json() == READY
    assert parts(stranger) == {"storage": "failed"}
    assert [(entry["event"], entry["part"]) for entry in logs] == [("part_failed", "storage")]


def test_a_process_that_has_never_reached_its_storage_is_not_ready(stranger, settings: Settings):
    shutil.rmtree(settings.storage_dir)
    assert refusal(stranger) == ["The storage cannot be used."]


def test_a_full_spool_is_this_process_own_fault(serve, settings: Settings, key: str):
    free = shutil.disk_usage(settings.spool_dir if settings.spool_dir.exists() else settings.root).free
    client = serve(settings.model_copy(update={"min_free_disk_bytes": 2 * free}), key=key)
    assert refusal(client) == ["There is no room for uploads: the spool's disk is full."]
    assert client.get("/healthz").status_code == 200


def test_a_process_that_stops_is_not_ready(serve, settings: Settings, key: str):
    readiness = Readiness(None, SpoolSpace(settings.root, keep_free_bytes=0))  # type: ignore[arg-type]
    readiness.stop()
    assert asyncio.run(readiness.faults()) == ["The server is stopping."]


def test_there_is_no_database(never_ready, tmp_path: Path):
    assert never_ready(database_url=f"sqlite:///{tmp_path}") == ["The database cannot be reached."]


def test_the_database_accepts_and_never_answers(
    serve, settings: Settings, key: str, black_hole: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("app.http.health_checks.CHECK_SECONDS", 1.0)
    hanging = {
        "database_url": f"postgresql://regen@127.0.0.1:{black_hole}/regen",
        "secret_key": "a secret of these tests, which is none",
    }
    client = serve(Settings(**{**settings.model_dump(), **hanging}), key=key)

    with ThreadPoolExecutor() as together:
        scraped = together.submit(client.get, "/metrics", timeout=TIMEOUT_SECONDS)
        faults = refusal(client)
    metrics = scraped.result()

    assert faults == ["The database cannot be reached."]
    assert client.get("/healthz").status_code == 200
    assert metrics.status_code == 200
    assert 'regen_part_up{part="database"} 0.0' in metrics.text
    assert 'regen_part_up{part="broker"} 1.0' in metrics.text
    assert 'regen_queue_messages{queue="gpu"}' in metrics.text
    assert "regen_renders{" not in metrics.text


def test_migrations_are_missing(stranger, database):
    migrations.downgrade(database, "0001")

    assert refusal(stranger) == ["The database lacks migrations. Apply them with: regen db upgrade"]


def test_a_database_that_a_later_version_has_upgraded(stranger, database):
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    assert stranger.get("/readyz?parts").json() == WITHOUT_WORKERS
