from collections.abc import Callable

import httpx
import pytest

from app.core.secrets import Secrets
from app.core.services import accounts

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
    for headers in (
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer regen_wrong"},
        {"Authorization": key},
        {"Authorization": f"Basic {key}"},
        {"Authorization": "Bearer another", "X-API-Key": key},
        {"X-API-Key": "kéy".encode("latin-1")},
        {"X-API-Key": "x" * 4000},
    ):
        response = stranger.request(method, path, headers=headers)

        assert (response.status_code, response.json()) == (401, NO_KEY)
        assert response.headers["WWW-Authenticate"] == "Bearer"


def test_a_revoked_key(client: httpx.Client, database, settings):
    with database.write() as session:
        new = accounts.create_key(session, user_name="ann", key_name="2", keys=Secrets.load(settings))
    headers = {"Authorization": f"Bearer {new.key}"}
    assert client.get("/v1/engines", headers=headers).status_code == 200
    with database.write() as session:
        accounts.revoke_key(session, key_id=new.row.id)

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
