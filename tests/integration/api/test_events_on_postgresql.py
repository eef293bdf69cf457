"""Streams of events while PostgreSQL cannot be reached."""

import json
from collections.abc import Iterator

import pytest
from pydantic import SecretStr
from sqlalchemy import URL, make_url, select

from app.accounts.tables import User
from app.platform.database import Database
from app.platform.settings import Settings
from app.renders import streams
from app.work.ledger import WorkLedger
from tests.integration.rows import a_file, a_render
from tests.servers.process import free_port, wait_until
from tests.servers.relay import Relay, relay_to

pytestmark = pytest.mark.slow


@pytest.fixture
def relay(migrated_postgres_url: str) -> Iterator[Relay]:
    with relay_to(make_url(migrated_postgres_url).port or 5432) as relay:
        yield relay


@pytest.fixture
def settings(tmp_path, migrated_postgres_url, relay) -> Settings:
    url: URL = make_url(migrated_postgres_url).set(host="127.0.0.1", port=relay.port)
    return Settings(
        data_dir=tmp_path / "data",
        broker_url=f"redis://127.0.0.1:{free_port()}/0",  # nobody is woken here
        database_url=url.render_as_string(hide_password=False),
        secret_key=SecretStr("a secret of these tests, which is none"),
    )


@pytest.fixture
def database(migrated_postgres_url) -> Iterator[Database]:
    """Not by way of the relay."""
    database = Database(migrated_postgres_url)
    yield database
    database.close()


def said(logs):
    """What the streams said of the outage."""
    return [line["event"] for line in logs if line["event"] == "streams_wait"]


@pytest.mark.parametrize("how", ["cut off", "silent"])
def test_streams_outlast_an_outage_in_silence(client, database, relay, monkeypatch, logs, how):
    monkeypatch.setattr(streams, "POLL_SECONDS", 0.05)
    monkeypatch.setattr("app.http.health_checks.CHECK_SECONDS", 1.0)
    with database.write() as session:
        file = a_file(session.scalars(select(User.id)).one())
        session.add(file)
        render = a_render(session, file)
    with client.stream("GET", f"/v1/renders/{render.id}/events") as response:
        told = (json.loads(line[6:])["status"] for line in response.iter_lines() if line.startswith("data: "))
        assert next(told) == "queued"
        relay.cut() if how == "cut off" else relay.pause()
        wait_until(lambda: said(logs), seconds=30, what="the stream waits")
        WorkLedger(database=database, worker="one", lease_seconds=30, max_attempts=3).claim()
        relay.restore() if how == "cut off" else relay.resume()
        assert next(told) == "pending"
    assert said(logs) == ["streams_wait"]
