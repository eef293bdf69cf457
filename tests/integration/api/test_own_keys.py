"""The keys that users make and revoke for themselves: none permits more than the one that made it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from threading import Barrier, Thread
from typing import Any

import httpx
import pytest

from app.accounts import service as account_service
from app.accounts.limits import Limits
from app.accounts.scopes import DEFAULT_SCOPES, Scope
from app.accounts.service import MOST_USABLE_KEYS
from app.platform.database import Database
from app.platform.secrets import Secrets
from app.platform.settings import Settings

Headers = dict[str, str]


@pytest.fixture
def key_with(database: Database, settings: Settings, key: str) -> Callable[..., Headers]:
    """Makes another key of ann's, as an administrator does; returns the header that gives it."""

    def make(*scopes: Scope, **more: Any) -> Headers:
        with database.write() as session:
            made = account_service.create_key_of(
                session,
                account_service.get_user_by_name(session, name="ann"),
                key_name="given",
                keys=Secrets.load(settings),
                scopes=scopes or DEFAULT_SCOPES,
                **more,
            )
        return bearer(made.key)

    return make


def bearer(key: str) -> Headers:
    return {"Authorization": f"Bearer {key}"}


def refusal(answer: httpx.Response, status: int) -> str:
    (error,) = answer.json()["errors"]
    assert answer.status_code == status
    message: str = error["message"]
    return message


def test_a_key_is_made_shown_once_and_revoked(client: httpx.Client):
    asked = {"name": "laptop", "scopes": ["read"], "expires_at": "2999-01-01T00:00:00Z"}
    once = {"Idempotency-Key": "laptop"}
    made = client.post("/v1/keys", json=asked, headers=once).json()
    replayed = client.post("/v1/keys", json=asked, headers=once)
    assert (replayed.json(), replayed.headers["Idempotent-Replayed"]) == ({"key": made["key"]}, "true")
    assert (made["key"]["name"], made["key"]["scopes"]) == ("laptop", ["read"])
    assert made["key"]["expiresAt"] == "2999-01-01T00:00:00.000Z"
    own = bearer(made["secret"])
    assert client.get("/v1/key", headers=own).json() == {"key": made["key"]}

    first = client.get("/v1/keys", params={"limit": 1}).json()
    rest = client.get("/v1/keys", params={"cursor": first["nextCursor"]}).json()
    assert [one["name"] for one in first["keys"] + rest["keys"]] == ["laptop", "test"]
    assert made["secret"] not in client.get("/v1/keys").text

    assert client.delete(f"/v1/keys/{made['key']['id']}").status_code == 204
    assert client.get("/v1/key", headers=own).status_code == 401
    assert "revokedAt" in client.get("/v1/keys").json()["keys"][0]
    assert client.delete(f"/v1/keys/{made['key']['id']}").status_code == 204, "again"


def test_what_was_made_outlives_its_maker(client: httpx.Client):
    made = client.post("/v1/keys", json={}).json()
    own = client.get("/v1/key").json()["key"]["id"]
    assert (made["key"]["name"], made["key"]["scopes"]) == ("key", ["read", "write"])
    assert client.delete(f"/v1/keys/{own}").status_code == 204
    assert client.get("/v1/key").status_code == 401
    assert client.post("/v1/keys", json={}).status_code == 401
    assert client.get("/v1/key", headers=bearer(made["secret"])).status_code == 200


def test_no_key_has_a_scope_that_its_maker_lacks(client: httpx.Client, key_with):
    answer = client.post("/v1/keys", json={"scopes": ["read", "admin"]})
    assert "lacks the scope `admin`" in refusal(answer, 403)
    write = key_with(Scope.WRITE)
    assert "lacks the scope `read`" in refusal(client.post("/v1/keys", json={}, headers=write), 403)
    made = client.post("/v1/keys", json={"scopes": ["write"]}, headers=write).json()
    assert made["key"]["scopes"] == ["write"]
    every = key_with(*Scope)
    made = client.post("/v1/keys", json={"scopes": ["admin"]}, headers=every).json()
    assert client.get("/v1/admin/users", headers=bearer(made["secret"])).status_code == 200


def test_the_scope_that_it_takes(client: httpx.Client, key_with):
    own = client.get("/v1/key").json()["key"]["id"]
    for headers in (key_with(Scope.READ), key_with(Scope.ADMIN)):
        assert "`write`" in refusal(client.post("/v1/keys", json={"scopes": ["read"]}, headers=headers), 403)
        assert "`write`" in refusal(client.delete(f"/v1/keys/{own}", headers=headers), 403)
    assert "`read`" in refusal(client.get("/v1/keys", headers=key_with(Scope.WRITE)), 403)
    assert client.get("/v1/keys", headers=key_with(Scope.READ)).status_code == 200


def test_no_key_expires_later_than_its_maker(client: httpx.Client, key_with):
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=2)
    headers = key_with(expires_at=end)
    shown = end.isoformat().replace("+00:00", ".000Z")

    def made(**asked: str | None) -> httpx.Response:
        return client.post("/v1/keys", json=asked, headers=headers)

    for asked in ({}, {"expires_at": None}, {"expires_at": end.isoformat()}):
        assert made(**asked).json()["key"]["expiresAt"] == shown, "by default with it"
    sooner = (end - timedelta(hours=1)).isoformat()
    assert made(expires_at=sooner).json()["key"]["expiresAt"] < shown
    assert f"no later than {shown}" in refusal(made(expires_at=(end + timedelta(seconds=1)).isoformat()), 400)
    assert "in the future" in refusal(made(expires_at="2001-01-01T00:00:00Z"), 400)
    assert "expiresAt" not in client.post("/v1/keys", json={}).json()["key"], "of a key without an end"


def test_it_has_the_limits_of_its_maker(client: httpx.Client, key_with):
    headers = key_with(limits=Limits(max_upload_bytes=1000, max_storage_bytes=5000))
    made = client.post("/v1/keys", json={}, headers=headers).json()
    assert made["key"]["limits"] == {"maxUploadBytes": 1000, "maxStorageBytes": 5000}
    chosen = client.post("/v1/keys", json={"limits": {"max_upload_bytes": 2000}}, headers=headers)
    assert "`limits`" in refusal(chosen, 400)


@pytest.mark.parametrize(
    "limits", [{"requests": "100/minute"}, {"max_queued_renders": 3}, {"max_cost_per_month": 0.5}]
)
def test_no_limit_is_doubled_by_a_second_key(client: httpx.Client, key_with, limits):
    answer = client.post("/v1/keys", json={}, headers=key_with(limits=Limits(**limits)))
    (name,) = limits
    assert f"`{name}`" in refusal(answer, 403)
    assert len(client.get("/v1/keys").json()["keys"]) == 2


def test_what_is_another_users_is_not_there(client: httpx.Client, make_key, key_with):
    bob = bearer(make_key("bob"))
    own = client.get("/v1/key").json()["key"]["id"]
    for headers, key_id in ((bob, own), (bob, "abc"), (bob, "%00"), (key_with(*Scope), None)):
        of_bob = client.get("/v1/key", headers=bob).json()["key"]["id"]
        answer = client.delete(f"/v1/keys/{key_id or of_bob}", headers=headers)
        assert refusal(answer, 404).startswith("There is no key with the id")
    assert client.get("/v1/key").status_code == client.get("/v1/key", headers=bob).status_code == 200
    assert [one["id"] for one in client.get("/v1/keys", headers=bob).json()["keys"]] == [of_bob]


def test_no_key_revokes_one_that_may_do_more(client: httpx.Client, key_with):
    every = key_with(*Scope)
    of_every = client.get("/v1/key", headers=every).json()["key"]["id"]
    assert "`admin`" in refusal(client.delete(f"/v1/keys/{of_every}"), 403)
    own = client.get("/v1/key").json()["key"]["id"]
    assert client.delete(f"/v1/keys/{own}", headers=every).status_code == 204
    assert client.delete(f"/v1/keys/{of_every}", headers=every).status_code == 204


def test_how_many_keys_there_may_be(client: httpx.Client, key_with):
    """Also of requests at once. Revoked and expired ones do not count."""
    for _ in range(MOST_USABLE_KEYS - 2):
        key_with()
    ready, answers = Barrier(4), []

    def make() -> None:
        with httpx.Client(base_url=client.base_url, headers=client.headers, timeout=60) as own:
            ready.wait()
            answers.append(own.post("/v1/keys", json={}))

    threads = [Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409]
    (made,) = [answer.json() for answer in answers if answer.status_code == 200]
    assert f"at most {MOST_USABLE_KEYS}" in refusal(client.post("/v1/keys", json={}), 409)
    assert client.delete(f"/v1/keys/{made['key']['id']}").status_code == 204
    assert client.post("/v1/keys", json={}).status_code == 200


def test_bodies_that_cannot_be(client: httpx.Client):
    for body in (
        {"scopes": []},
        {"scopes": ["all"]},
        {"expires_at": "2999-01-01T00:00:00"},
        {"expires": "2999-01-01T00:00:00Z"},
        {"name": "x" * 201},
        {"user_id": "KY0U9paFGEwMiSN6"},
    ):
        assert client.post("/v1/keys", json=body).status_code == 400, body
    assert len(client.get("/v1/keys").json()["keys"]) == 1
