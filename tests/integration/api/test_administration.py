"""What an administrator's key may see, and that nobody else may."""

import pytest
from sqlalchemy import insert

from app.core.database import database_now
from app.core.scopes import Scope
from app.core.secrets import Secrets
from app.core.services import accounts
from app.core.tables import Worker

IDLE = {
    "name": "here-1-abc",
    "host": "here",
    "pid": 1,
    "device": "cuda:0",
    "queues": "cpu,gpu",
    "engines": ["regen-4x", "regen-4x-lite"],
    "version": "0.1.0",
    "started_at": database_now(plus_seconds=-7200),
    "heartbeat_at": database_now(),
    "units_done": 41,
}
BUSY_AND_SILENT = IDLE | {
    "name": "there-1-def",
    "queues": "gpu",
    "started_at": database_now(plus_seconds=-3600),
    "heartbeat_at": database_now(plus_seconds=-600),
    "kind": "upscale",
    "render_id": "r",
    "segment_id": "s",
}


@pytest.fixture
def administrator(database, settings, key):
    with database.write() as session:
        made = accounts.create_key(
            session, user_name="ann", key_name="2", keys=Secrets.load(settings), scopes=set(Scope)
        )
    return {"Authorization": f"Bearer {made.key}"}


def test_an_administrator_sees_the_workers(client, administrator, database):
    assert client.get("/v1/workers", headers=administrator).json() == {"workers": []}
    with database.write() as session:
        for row in (IDLE, BUSY_AND_SILENT):
            session.execute(insert(Worker).values(row))
    answer = client.get("/v1/workers", headers=administrator)
    assert answer.status_code == 200
    idle, silent = answer.json()["workers"]
    assert idle.pop("startedAt") < silent.pop("startedAt") < silent.pop("heartbeatAt")
    assert idle.pop("heartbeatAt").endswith("Z")
    assert idle == {
        "name": "here-1-abc",
        "host": "here",
        "pid": 1,
        "device": "cuda:0",
        "queues": ["cpu", "gpu"],
        "engines": ["regen-4x", "regen-4x-lite"],
        "version": "0.1.0",
        "alive": True,
        "unitsDone": 41,
    }
    assert (silent["alive"], silent["queues"]) == (False, ["gpu"])
    assert silent["work"] == {"kind": "upscale", "renderId": "r", "segmentId": "s"}


def test_others_are_told_that_they_may_not(client, stranger):
    answer = client.get("/v1/workers")
    assert answer.status_code == 403
    (error,) = answer.json()["errors"]
    assert "administrator" in error["message"]
    del stranger.headers["Authorization"]
    assert stranger.get("/v1/workers").status_code == 401


def test_an_administrators_key_is_its_users_key_too(client, administrator):
    assert client.get("/v1/engines", headers=administrator).status_code == 200
    schema = client.get("/openapi.json").json()
    assert {"200", "401", "403"} <= schema["paths"]["/v1/workers"]["get"]["responses"].keys()
