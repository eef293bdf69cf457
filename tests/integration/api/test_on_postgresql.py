"""The API on PostgreSQL: what SQLite takes and PostgreSQL does not, and an outage under a running server."""

import json
from fractions import Fraction

import pytest
from pydantic import SecretStr
from sqlalchemy import select

from app.core import migrations
from app.core.database import Database
from app.core.settings import Settings
from app.core.tables import File, Render
from tests.servers.postgres import PostgresServer
from tests.servers.process import free_port


@pytest.fixture
def postgres():
    """A server of this test's own, which it may stop."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def settings(tmp_path, postgres):
    return Settings(
        data_dir=tmp_path / "data",
        broker_url=f"redis://127.0.0.1:{free_port()}/0",  # nobody is woken here
        database_url=postgres.create_database(),
        secret_key=SecretStr("x" * 32),
    )


@pytest.fixture
def database(settings):
    database = Database.from_settings(settings)
    migrations.upgrade(database)
    yield database
    database.close()


def test_uploads_and_renders_and_an_outage_between(client, clip, database, postgres):
    name = "Ünïcode 🎬 " + "n" * 300 + ".mp4"
    with clip.open("rb") as body:
        answer = client.post("/v1/upscale", files={"file": (name, body)}, data={"target_fps": "30000/1001"})
    assert answer.status_code == 200, answer.text
    render = answer.json()["render"]
    assert client.get(f"/v1/renders/{render['id']}").json()["render"]["status"] == "queued"
    for strange in ("%00", "a%00b", "%ED%B3%BF", "%D9%A1", "x" * 500):
        assert client.get(f"/v1/renders/{strange}").status_code == 404
        assert client.get(f"/v1/files/{strange}").status_code == 404
    for strange in ("a\0b", "\udcff"):
        as_json = {
            "content": json.dumps({"file_id": strange}),
            "headers": {"Content-Type": "application/json"},
        }
        assert client.post("/v1/upscale", **as_json).status_code == 404

    with postgres.administration() as connection:
        busy = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'regen' AND state <> 'idle'"
        assert connection.execute(busy).fetchone() == (0,)

    postgres.kill()
    answer = client.get(f"/v1/renders/{render['id']}")
    assert (answer.status_code, answer.json()["errors"][0]["message"]) == (
        503,
        "The database cannot be reached just now.",
    )
    assert int(answer.headers["Retry-After"]) > 0
    postgres.start()
    assert client.get(f"/v1/renders/{render['id']}").json()["render"]["id"] == render["id"]

    answer = client.post("/v1/upscale", json={"file_id": render["fileId"], "engine": "regen-4x"})
    assert answer.status_code == 200, answer.text
    with database.read() as session:
        rates = session.scalars(select(Render.target_fps).order_by(Render.created_at)).all()
        assert rates == [Fraction(30000, 1001), None]
        assert session.scalars(select(File.name)).one().startswith("Ünïcode 🎬 nnn")
