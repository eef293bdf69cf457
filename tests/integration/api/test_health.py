"""Liveness and readiness, with every part failing in turn."""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from app import migrations
from app.platform.settings import Settings

ALL_WELL = {"database": "ok", "migrations": "ok", "storage": "ok", "broker": "ok"}
READY_WITHOUT_WORKERS = {
    "status": "ok",
    "parts": ALL_WELL,
    "workers": {"alive": 0, "stalled": 0},
    "warnings": ["No worker is running, so renders wait until one is started."],
}
# Longer than any answer may take; nothing here says how fast the machine is.
TIMEOUT_SECONDS = 20


@pytest.fixture
def not_ready(serve, settings: Settings, key: str) -> Callable[..., list[str]]:
    """What /readyz answers with these settings: 503, while the process lives on."""

    def ask(**changes: str) -> list[str]:
        client = serve(settings.model_copy(update=changes), key=key)
        assert client.get("/healthz").status_code == 200
        return refusal(client)

    return ask


def refusal(client: httpx.Client) -> list[str]:
    """One message for each part that failed."""
    response = client.get("/readyz", timeout=TIMEOUT_SECONDS)
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) > 0
    (*faults,) = response.json()["errors"]
    assert response.json() == {"errors": faults}, "nothing stands beside the errors"
    return [fault["message"] for fault in faults]


def test_all_is_well(stranger):
    assert stranger.get("/healthz").json() == {"status": "ok"}
    response = stranger.get("/readyz")

    assert (response.status_code, response.json()) == (200, READY_WITHOUT_WORKERS)


def test_the_broker_is_away(not_ready, tmp_path: Path):
    assert not_ready(broker_url=f"redis+socket://{tmp_path}/none.sock", broker_password=None) == [
        "The broker cannot be reached."
    ]


def test_the_broker_accepts_and_never_answers(not_ready, black_hole: int):
    assert not_ready(broker_url=f"redis://127.0.0.1:{black_hole}/0") == ["The broker cannot be reached."]


def test_the_storage_is_gone(stranger, settings: Settings, logs):
    shutil.rmtree(settings.storage_dir)

    assert refusal(stranger) == ["The storage cannot be used."]
    assert [(entry["event"], entry["part"]) for entry in logs] == [("part_failed", "storage")]


def test_there_is_no_database(not_ready, tmp_path: Path):
    assert not_ready(database_url=f"sqlite:///{tmp_path}") == ["The database cannot be reached."]


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

    assert stranger.get("/readyz").json() == READY_WITHOUT_WORKERS
