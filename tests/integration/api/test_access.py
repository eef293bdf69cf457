import json
import os
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import text

from app.accounts import key_use
from app.accounts import queries as account_queries
from app.accounts import service as account_service
from app.accounts.scopes import Scope
from app.accounts.tables import ApiKey
from app.platform import clock
from app.platform.secrets import Secrets
from tests.servers.forked import ForkedServerProcess
from tests.servers.process import free_port, wait_until

NO_KEY = {"errors": [{"message": "A valid API key is required."}]}


def test_a_key_is_taken_from_either_header(stranger: httpx.Client, key: str):
    for headers in (
        {"Authorization": f"Bearer {key}"},
        {"Authorization": f"bearer   {key}"},
        {"AUTHORIZATION": f"BEARER {key}"},
        {"X-API-Key": key},
        {"Authorization": f"Bearer {key}", "X-API-Key": "another"},
        {"Authorization": "Basic YTpi", "X-API-Key": key},
    ):
        assert stranger.get("/v1/engines", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/engines"),
        ("GET", "/v1/files/abc"),
        ("POST", "/v1/files"),
        ("POST", "/v1/upscale"),
        ("GET", "/v1/renders/abc"),
        ("GET", "/renders/abc"),
    ],
)
def test_no_valid_key(stranger: httpx.Client, key: str, method, path):
    for headers, advice in (
        ({}, None),
        ({"Authorization": ""}, None),
        ({"Authorization": "Bearer"}, "has no key after `Bearer`"),
        ({"Authorization": "Bearer regen_wrong"}, None),
        ({"Authorization": key}, "lacks the word `Bearer`"),
        ({"Authorization": f"Basic {key}"}, 'begins with "Basic", not `Bearer`'),
        ({"Authorization": f"Token {key}"}, 'begins with "Token", not `Bearer`'),
        ({"Authorization": f"{key} {key}"}, 'begins with "regen_'),
        ({"Authorization": f"Bearer Bearer {key}"}, "is more than a key"),
        ({"Authorization": f"Bearer '{key}'"}, "is more than a key"),
        ({"X-API-Key": f"Bearer {key}"}, "is more than a key"),
        ({"X-Auth-Token": key}, "in `x-auth-token` is not read"),
        ({"Authorization": "Bearer another", "X-API-Key": key}, None),
        ({"X-API-Key": "kéy".encode("latin-1")}, None),
        ({"X-API-Key": "x" * 4000}, None),
    ):
        response = stranger.request(method, path, headers=headers)

        assert response.status_code == 401
        if advice is None:
            assert response.json() == NO_KEY
        else:
            (error,) = response.json()["errors"]
            assert error["message"].startswith("A valid API key is required. ")
            assert advice in error["message"]
            assert error["message"].endswith(" Send `Authorization: Bearer <API key>`.")
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert key not in response.text
    in_query = stranger.request(method, path, params={"api_key": key})
    assert "in `api_key` is not read" in in_query.json()["errors"][0]["message"]
    assert key not in in_query.text


def test_a_revoked_key(client: httpx.Client, database, settings):
    with database.write() as session:
        new = account_service.create_key(session, user_name="ann", key_name="2", keys=Secrets.load(settings))
    headers = {"Authorization": f"Bearer {new.key}"}
    assert client.get("/v1/engines", headers=headers).status_code == 200
    with database.write() as session:
        account_service.revoke_key(session, key_id=new.row.id)

    response = client.get("/v1/engines", headers=headers)

    assert (response.status_code, response.json()) == (401, NO_KEY)
    assert client.get("/v1/engines").status_code == 200


def test_what_is_another_users_is_not_found(client: httpx.Client, clip, make_key: Callable[[str], str]):
    with clip.open("rb") as file:
        render = client.post("/v1/upscale", files={"file": file}).json()["render"]
    bob = {"Authorization": f"Bearer {make_key('bob')}"}

    for path, message in (
        (f"/v1/renders/{render['id']}", "Render not found"),
        (f"/renders/{render['id']}", "Render not found"),
        (f"/v1/files/{render['fileId']}", "File not found"),
    ):
        assert client.get(path).status_code == 200
        response = client.get(path, headers=bob)
        assert (response.status_code, response.json()) == (404, {"errors": [{"message": message}]})


class TestRateLimit:
    @pytest.fixture
    def limited(self, serve, settings, key) -> httpx.Client:
        return serve(settings.model_copy(update={"rate_limit": "3/hour"}), key=key)

    def test_the_request_after_the_last_allowed_one(self, limited, make_key):
        for _number in range(3):
            assert limited.get("/v1/engines").status_code == 200

        response = limited.get("/v1/engines")

        assert response.status_code == 429
        assert 3590 <= int(response.headers["Retry-After"]) <= 3600
        (error,) = response.json()["errors"]
        assert error["message"].startswith("Too many requests: at most 3 per 1 hour are allowed.")
        bob = {"Authorization": f"Bearer {make_key('bob')}"}
        assert limited.get("/v1/engines", headers=bob).status_code == 200, (
            "another user has a limit of their own"
        )
        assert limited.get("/healthz").status_code == 200

    def test_a_request_without_a_key_costs_nobody_anything(self, limited):
        for _number in range(5):
            assert limited.get("/v1/engines", headers={"Authorization": "Bearer x"}).status_code == 401

        assert limited.get("/v1/engines").status_code == 200


def test_no_rate_limit_by_default(client):
    assert {client.get("/v1/engines").status_code for _number in range(150)} == {200}


@pytest.fixture
def key_with(database, settings, key) -> Callable[..., dict[str, str]]:
    """Makes another key of ann's; returns the header that gives it."""

    def make(*scopes: Scope, **more) -> dict[str, str]:
        with database.write() as session:
            made = account_service.create_key(
                session,
                user_name="ann",
                key_name="2",
                keys=Secrets.load(settings),
                scopes=scopes or tuple(Scope),
                **more,
            )
        return {"Authorization": f"Bearer {made.key}"}

    return make


def test_scopes(client, key_with):
    read, write, admin = (key_with(scope) for scope in Scope)
    asked = {
        ("GET", "/v1/engines"): ("read", read),
        ("GET", "/v1/usage"): ("read", read),
        ("GET", "/v1/keys"): ("read", read),
        ("DELETE", "/v1/keys/abc"): ("write", write),
        ("POST", "/v1/upscale"): ("write", write),
        ("DELETE", "/v1/files/abc"): ("write", write),
        ("GET", "/v1/workers"): ("admin", admin),
        ("GET", "/v1/admin/workers"): ("admin", admin),
        ("POST", "/v1/admin/workers/abc/drain"): ("admin", admin),
        ("POST", "/v1/admin/workers/abc/resume"): ("admin", admin),
        ("GET", "/v1/admin/users"): ("admin", admin),
        ("DELETE", "/v1/admin/keys/abc"): ("admin", admin),
    }
    for (method, path), (scope, fitting) in asked.items():
        for headers in (read, write, admin):
            answer = client.request(method, path, headers=headers)
            if headers is fitting:
                assert answer.status_code in (200, 400, 404), (method, path)
            else:
                (error,) = answer.json()["errors"]
                assert answer.status_code == 403 and f"`{scope}`" in error["message"]


def test_an_expired_key(client, key_with, monkeypatch):
    headers = key_with(expires_at=clock.now() + timedelta(hours=1))
    assert client.get("/v1/engines", headers=headers).status_code == 200
    monkeypatch.setattr(clock, "_source", lambda: datetime.now(UTC) + timedelta(hours=1))
    refused = client.get("/v1/engines", headers=headers)
    assert refused.status_code == 401
    assert refused.json() == {"errors": [{"message": "This API key has expired."}]}
    assert client.get("/v1/engines").status_code == 200


class TestLastUse:
    @pytest.fixture
    def last_used(self, database) -> Callable[[], datetime | None]:
        def ask() -> datetime | None:
            with database.read() as session:
                return session.query(ApiKey).one().last_used_at

        return ask

    def test_it_is_written_down_once_in_a_while(self, client, last_used, monkeypatch):
        monkeypatch.setattr(key_use, "GATHERED_SECONDS", 0.01)
        first = clock.now()
        assert last_used() is None
        client.get("/v1/engines")
        wait_until(lambda: last_used() is not None, what="it is written")
        noted = last_used()
        assert noted is not None and timedelta(0) <= noted - first < timedelta(seconds=10)
        for _ in range(5):
            client.get("/v1/engines")
        assert last_used() == noted
        later = first + timedelta(seconds=90)
        monkeypatch.setattr(clock, "_source", lambda: later)
        monkeypatch.setattr(key_use, "NOTED_EVERY_SECONDS", 0.0)
        client.get("/v1/engines")
        wait_until(lambda: last_used() == later, what="it is written again")

    def test_a_database_that_takes_nothing_fails_no_request(self, client, database, last_used, settings):
        with database.write() as session:
            session.execute(
                text("CREATE TRIGGER no BEFORE UPDATE ON api_keys BEGIN SELECT RAISE(ABORT, 'no'); END")
            )
        assert client.get("/v1/engines").status_code == 200
        # Whoever writes holds all other writers up, but nobody who reads.
        holder = sqlite3.connect(settings.root / "regen.db", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        assert client.get("/v1/engines").status_code == 200
        holder.execute("ROLLBACK")
        holder.close()
        assert last_used() is None


def test_no_key_is_in_the_log(settings, database, key, tmp_path):
    """Of a server as it is run, which logs everything it can, and of refused ones which usable key they resemble."""
    port, ready = free_port(), tmp_path / "ready.json"
    server = ForkedServerProcess(
        ["serve", "--no-worker", "--port", str(port), "--data-dir", settings.root, "--ready-file", ready],
        log=tmp_path / "server.log",
        environment={**os.environ, "REGEN_LOG_LEVEL": "debug", "REGEN_LOG_FORMAT": "json"},
    )
    wrong, revoked = key[:-4] + "0000", "regen_gone" + "0" * 39
    with database.write() as session:
        made = account_service.create_key(
            session, user_name="ann", key_name="old", keys=Secrets.load(settings)
        )
        made.row.hint = account_service.hint_of(revoked)
        account_service.revoke_key(session, key_id=made.row.id)
        (own,) = (one.id for one, _ in account_queries.list_keys(session) if one.hint in key)
    try:
        server.wait_until(ready.exists, seconds=60, what="it is ready")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            assert client.get("/v1/engines", headers={"X-API-Key": key}).status_code == 200
            unknown = "regen_mine" + "0" * 39
            for headers in (
                *({"Authorization": f"Bearer {refused}"} for refused in (revoked, unknown, wrong)),
                {"X-API-Key": wrong},
            ):
                assert client.get("/v1/engines", headers=headers).status_code == 401
            client.headers["Authorization"] = f"Bearer {key}"
            client.get(f"/v1/engines?key={key}&api_key={wrong}").raise_for_status()
            assert client.get(f"/v1/renders/{key}").status_code == 404
        wait_until(lambda: "key_of_another_secret" in server.log.read_text(), seconds=30, what="it is said")
    finally:
        server.stop()
    written = server.log.read_text()
    assert written.count("request_done") >= 7
    (said,) = (json.loads(line) for line in written.splitlines() if "key_of_another_secret" in line)
    assert (said["level"], said["key_id"], said["hint"]) == ("error", own, account_service.hint_of(key))
    for secret in (key, wrong):
        assert secret.removeprefix("regen_") not in written
