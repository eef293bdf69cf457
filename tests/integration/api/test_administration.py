"""What an administrator's key may see, and that nobody else may."""

from fractions import Fraction

import pytest
from sqlalchemy import insert, select

from app.accounts import service as account_service
from app.accounts.scopes import Scope
from app.platform.database import database_now
from app.platform.errors import LeaseLost, PermanentError
from app.platform.media.info import VideoProperties
from app.platform.secrets import Secrets
from app.renders.tables import Segment
from app.work.ledger import WorkLedger
from app.work.planning import PlannedSegment
from app.work.tables import WorkerProcess

FACTS = VideoProperties(width=64, height=48, frame_rate=Fraction(25), duration_seconds=Fraction(2), frames=50)

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


def prepare(ledger, claim, *, segments):
    ledger.prepared(
        claim,
        plan="",
        source=FACTS,
        output=FACTS,
        cost=1.0,
        warnings=[],
        segments=[PlannedSegment(frames=10, plan="") for _ in range(segments)],
    )


@pytest.fixture
def administrator(database, settings, key):
    with database.write() as session:
        made = account_service.create_key(
            session, user_name="ann", key_name="2", keys=Secrets.load(settings), scopes=set(Scope)
        )
    return {"Authorization": f"Bearer {made.key}"}


def test_an_administrator_sees_the_workers(client, administrator, database):
    assert client.get("/v1/workers", headers=administrator).json() == {"workers": []}
    assert client.get("/v1/admin/workers", headers=administrator).json() == {"workers": []}
    with database.write() as session:
        for row in (IDLE, BUSY_AND_SILENT):
            session.execute(insert(WorkerProcess).values(row))
    answer = client.get("/v1/workers", headers=administrator)
    assert answer.status_code == 200
    idle, silent = answer.json()["workers"]
    assert idle.pop("startedAt") < silent.pop("startedAt") < silent.pop("heartbeatAt")
    assert idle.pop("heartbeatAt").endswith("Z")
    assert idle.pop("statusSince").endswith("Z")
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
        "machine": "here",
        "status": "active",
        "software": {},
        "precisions": [],
        "measuresVmaf": False,
        "labels": [],
    }
    assert (silent["alive"], silent["queues"]) == (False, ["gpu"])
    assert silent["work"] == {"kind": "upscale", "renderId": "r", "segmentId": "s", "stalled": False}


def test_an_administrator_drains_a_worker_and_resumes_it(client, administrator, database):
    with database.write() as session:
        session.execute(insert(WorkerProcess).values(IDLE))
    path = f"/v1/admin/workers/{IDLE['name']}"
    for action, status in (("drain", "drained"), ("drain", "drained"), ("resume", "active")):
        answer = client.post(f"{path}/{action}", headers=administrator)
        assert answer.status_code == 200, answer.text
        assert answer.json()["worker"]["status"] == status
        assert client.post(f"{path}/{action}").status_code == 403
        assert client.post(f"/v1/admin/workers/no-one/{action}", headers=administrator).status_code == 404


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


class TestUsersAndKeys:
    @pytest.fixture
    def admin(self, client, administrator):
        client.headers.update(administrator)
        return client

    @pytest.fixture
    def bob(self, admin):
        made = admin.post("/v1/admin/users", json={"name": " bob ", "limits": {"max_queued_renders": 3}})
        assert made.status_code == 200, made.text
        return made.json()["user"]

    def test_users(self, admin, bob):
        assert bob | {"id": "", "createdAt": ""} == {
            "id": "", "name": "bob", "createdAt": "", "limits": {"maxQueuedRenders": 3}
        }  # fmt: skip
        first = admin.get("/v1/admin/users?limit=1").json()
        second = admin.get(f"/v1/admin/users?limit=1&cursor={first['nextCursor']}").json()
        assert [user["name"] for user in first["users"] + second["users"]] == ["bob", "ann"]
        assert "nextCursor" not in second

        path = f"/v1/admin/users/{bob['id']}"
        change = {"max_running_renders": 2, "limits": {"requests": "5/minute", "max_queued_renders": None}}
        changed = admin.patch(path, json=change).json()["user"]
        assert changed == {**bob, "maxRunningRenders": 2, "limits": {"requests": "5/minute"}}
        assert admin.get(path).json()["user"] == changed
        renamed = admin.patch(path, json={"name": "rob", "max_running_renders": None, "limits": None}).json()
        assert renamed["user"] == {**bob, "name": "rob", "limits": {}}

        assert admin.patch(path, json={"name": "ann"}).status_code == 409
        assert admin.post("/v1/admin/users", json={"name": "rob"}).status_code == 409
        assert admin.get(f"{path}/usage").json()["usage"]["days"] == []

    def test_users_that_cannot_be(self, admin):
        for body in (
            {},
            {"name": None},
            {"name": "\n"},
            {"name": "x" * 201},
            {"name": "x", "limits": {"requests": "often"}},
            {"name": "x", "limits": {"max_upload_bytes": 0}},
            {"name": "x", "max_running_renders": 0},
        ):
            assert admin.post("/v1/admin/users", json=body).status_code == 400, body
        assert len(admin.get("/v1/admin/users").json()["users"]) == 1

    def test_keys(self, admin, bob, database):
        path = f"/v1/admin/users/{bob['id']}/keys"
        asked = {"name": "laptop", "scopes": ["read"], "expires_at": "2999-01-01T00:00:00+01:00"}
        once = {"Idempotency-Key": "laptop"}
        made = admin.post(path, json=asked, headers=once).json()
        replayed = admin.post(path, json=asked, headers=once)
        assert (replayed.json(), replayed.headers["Idempotent-Replayed"]) == ({"key": made["key"]}, "true")
        assert made["key"]["expiresAt"] == "2998-12-31T23:00:00.000Z"
        assert made["secret"].startswith(made["key"]["hint"])
        own = {"Authorization": f"Bearer {made['secret']}"}
        assert admin.get("/v1/usage", headers=own).status_code == 200
        assert admin.post("/v1/upscale", json={}, headers=own).status_code == 403

        key = f"/v1/admin/keys/{made['key']['id']}"
        changed = admin.patch(key, json={"scopes": ["write", "read"], "limits": {"requests": "9/minute"}})
        assert changed.json()["key"]["scopes"] == ["write", "read"]
        assert admin.post("/v1/upscale", json={}, headers=own).status_code == 400
        assert admin.patch(key, json={"expires_at": "2001-01-01T00:00:00Z"}).status_code == 400
        assert "expiresAt" not in admin.patch(key, json={"expires_at": None}).json()["key"]
        listed = admin.get(path).json()["keys"]
        assert [one["id"] for one in listed] == [made["key"]["id"]]
        assert made["secret"] not in admin.get(path).text

        assert admin.delete(key).status_code == 204
        assert admin.get("/v1/usage", headers=own).status_code == 401
        assert "revokedAt" in admin.get(path).json()["keys"][0]

    def test_keys_that_cannot_be(self, admin, bob):
        path = f"/v1/admin/users/{bob['id']}/keys"
        for body in (
            {"scopes": []},
            {"scopes": ["all"]},
            {"expires_at": "2001-01-01T00:00:00Z"},
            {"expires_at": "2999-01-01T00:00:00"},
            {"expires_at": "9999-12-31T23:59:59-05:00"},
        ):
            assert admin.post(path, json=body).status_code == 400, body
        assert admin.get(path).json() == {"keys": []}
        key = admin.post(path, json={"scopes": None, "expires_at": "", "limits": None}).json()["key"]
        assert (key["scopes"], key["limits"], "expiresAt" in key) == (["read", "write"], {}, False)
        path = f"/v1/admin/keys/{key['id']}"
        for body in ({"scopes": None}, {"name": None}):
            assert admin.patch(path, json=body).status_code == 400, body
        assert admin.patch(path, json={"scopes": "", "name": " "}).json()["key"] == key

    def test_unknown_names_are_refused(self, admin, bob):
        user, keys = f"/v1/admin/users/{bob['id']}", f"/v1/admin/users/{bob['id']}/keys"
        limits = {"limits": {"request": "1/minute", "max_cost": 3}}
        for method, path, body, told in (
            ("POST", keys, {"expiresAt": "2001-01-01T00:00:00Z"}, ["`expiresAt`/`expires_at`"]),
            ("POST", keys, {"expires": "2001-01-01T00:00:00Z"}, ["`expires`/`expires_at`"]),
            ("POST", keys, limits, ["`limits.request`/`requests`", "`limits.max_cost`"]),
            ("POST", "/v1/admin/users", {"Name": "x"}, ["required", "`Name`/`name`"]),
            ("PATCH", user, {"maxRunningRenders": 1}, ["`maxRunningRenders`/`max_running_renders`"]),
            ("PATCH", user, {"a`\x1b" + 99 * "b": 1}, ["`a'\\x1bbbb"]),
        ):
            answer = admin.request(method, path, json=body)
            messages = [error["message"] for error in answer.json()["errors"]]
            assert (answer.status_code, len(messages)) == (400, len(told)), messages
            for message, expected in zip(messages, told, strict=True):
                name, _, meant = expected.partition("/")
                assert name in message
                assert message.endswith(f"did you mean {meant}?" if meant else ".")
        assert admin.get(keys).json() == {"keys": []}
        assert admin.get(user).json()["user"] == bob
        answer = admin.patch(user, json={f"x{number}": 1 for number in range(4_500)})
        assert (answer.status_code, len(answer.json()["errors"])) == (400, 8), "however many there are"
        assert answer.elapsed.total_seconds() < 5

    def test_what_is_not_there(self, admin):
        for path in (
            "users/abc",
            "users/abc/keys",
            "users/abc/usage",
            "users/%00",
            "renders/abc",
            "renders/%00",
        ):
            assert admin.get(f"/v1/admin/{path}").status_code == 404
        for path in ("users/abc", "keys/abc", "keys/%00"):
            assert admin.patch(f"/v1/admin/{path}", json={}).status_code == 404
        assert admin.post("/v1/admin/users/abc/keys", json={}).status_code == 404
        for path in ("renders/abc/requeue", "renders/abc/retry", "renders/%00/requeue"):
            assert admin.post(f"/v1/admin/{path}").status_code == 404
        assert admin.delete("/v1/admin/keys/abc").status_code == 404


def test_a_stuck_render_is_taken_up_again_and_a_failed_one_anew(client, administrator, database, clip):
    with clip.open("rb") as content:
        render = client.post("/v1/upscale", files={"file": content}).json()["render"]
    first, second = (
        WorkLedger(database=database, worker=name, lease_seconds=600, max_attempts=3) for name in "ab"
    )
    requeue = f"/v1/admin/renders/{render['id']}/requeue"

    def requeued() -> str:
        answer = client.post(requeue, headers=administrator)
        assert answer.status_code == 200, answer.text
        return answer.json()["render"]["status"]

    assert client.post(requeue).status_code == 403
    of_any_user = f"/v1/admin/renders/{render['id']}"
    assert client.get(of_any_user).status_code == 403
    assert client.get(of_any_user, headers=administrator).json()["render"]["fileName"] == clip.name
    stuck = first.claim()
    assert second.claim() is None
    assert requeued() == "pending"
    assert not first.renew(stuck, frames_done=0)
    with pytest.raises(LeaseLost):
        prepare(first, stuck, segments=1)
    prepare(second, second.claim(), segments=2)
    held, resting = first.claim(), first.claim()
    first.failed(resting, RuntimeError("once"))
    assert second.claim() is None
    assert requeued() == "processing"
    again = [second.claim(), second.claim()]
    assert {claim.segment_id for claim in again} == {held.segment_id, resting.segment_id}
    assert {claim.attempt for claim in again} == {2}
    assert not first.renew(held, frames_done=1)
    with database.read() as session:
        assert sorted(session.scalars(select(Segment.failures))) == [0, 1], "nothing more is charged"

    second.failed(again[0], PermanentError("It cannot be."))
    assert client.post(requeue, headers=administrator).status_code == 409
    retry = client.post(f"/v1/admin/renders/{render['id']}/retry", headers=administrator).json()["render"]
    assert (retry["retryOf"], retry["userId"], retry["status"]) == (render["id"], render["userId"], "queued")
