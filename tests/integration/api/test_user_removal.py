"""A deleted user leaves nothing, and a neighbour notices nothing."""

import pytest
from sqlalchemy import select

from app.accounts import service as account_service
from app.accounts.scopes import Scope
from app.accounts.tables import User
from app.administration.queries import TABLES_OF_USERS
from app.platform.errors import PermanentError
from app.platform.secrets import Secrets
from app.platform.tables import Table
from app.work.ledger import WorkLedger


@pytest.fixture
def administrator(database, settings, make_key):
    make_key("root")
    with database.write() as session:
        made = account_service.create_key(
            session, user_name="root", key_name="2", keys=Secrets.load(settings), scopes=set(Scope)
        )
        return {"Authorization": f"Bearer {made.key}"}


def make_one_of_each(client, clip):
    """The user's render, and one of all else that a user can have."""
    with clip.open("rb") as content:
        answer = client.post("/v1/upscale", files={"file": content}, headers={"Idempotency-Key": "once"})
    render = answer.json()["render"]
    for path, body in (
        ("uploads", {"name": "a.mp4", "size_bytes": 1000}),
        ("previews", {"file_id": render["fileId"]}),
        ("webhooks", {"url": "https://93.184.216.34/"}),
    ):
        answer = client.post(f"/v1/{path}", json=body)
        assert answer.status_code == 200, answer.text
    return render


def test_all_that_belongs_to_a_user_goes_with_the_user(
    client, administrator, make_key, database, clip, stored_files
):
    own, other = client.headers["Authorization"], f"Bearer {make_key('bob')}"
    client.headers["Authorization"] = other
    make_one_of_each(client, clip)
    of_bob = stored_files()
    client.headers["Authorization"] = own
    render = make_one_of_each(client, clip)
    worker = WorkLedger(database=database, worker="a", lease_seconds=600, max_attempts=3)
    held = [worker.claim(), worker.claim()]
    assert len(stored_files()) == 2 * len(of_bob) > 0

    path = f"/v1/admin/users/{render['userId']}"
    assert client.delete(path).status_code == 403
    assert client.delete(path, headers=administrator).status_code == 204
    assert client.get("/v1/renders").status_code == 401
    assert client.delete(path, headers=administrator).status_code == 404
    assert stored_files() == of_bob
    with database.read() as session:
        for table in TABLES_OF_USERS:
            assert render["userId"] not in session.scalars(select(table.user_id)).all()
    (lost,) = (claim for claim in held if claim.render_id == render["id"])
    assert not worker.renew(lost, frames_done=0)
    worker.failed(lost, PermanentError("It cannot be."))

    client.headers["Authorization"] = other
    assert len(client.get("/v1/renders").json()["renders"]) == 1


def test_the_administrators_own_user_stays(client, administrator):
    users = client.get("/v1/admin/users", headers=administrator).json()["users"]
    own = next(user for user in users if user["name"] == "root")
    answer = client.delete(f"/v1/admin/users/{own['id']}", headers=administrator)
    assert (answer.status_code, "another administrator" in answer.text) == (409, True)


def test_no_table_of_users_is_forgotten():
    of_users = {
        table.name
        for table in Table.metadata.tables.values()
        if any(key.column.table is User.__table__ for key in table.foreign_keys)
    }
    assert {table.__tablename__ for table in TABLES_OF_USERS} == of_users
