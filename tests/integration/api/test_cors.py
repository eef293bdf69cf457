"""Pages of other origins use the API from a browser, where the operator lets them."""

import httpx
import pytest
from pydantic import ValidationError

from app.platform.settings import Settings

ORIGIN = "https://app.example.com"
PREFLIGHT = {
    "Origin": ORIGIN,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,idempotency-key",
}


@pytest.fixture
def page(serve, settings, key) -> httpx.Client:
    """The API to a page of an origin that is allowed."""
    allowed = (ORIGIN, "http://localhost:5173")
    client: httpx.Client = serve(settings.model_copy(update={"cors_origins": allowed}), key=key)
    client.headers["Origin"] = ORIGIN
    return client


def allowed_origin(answer: httpx.Response) -> str | None:
    return answer.headers.get("Access-Control-Allow-Origin")


def test_a_preflight_needs_no_key(page):
    del page.headers["Authorization"]

    answer = page.options("/v1/upscale", headers=PREFLIGHT)

    assert (answer.status_code, answer.content) == (204, b"")
    assert allowed_origin(answer) == ORIGIN
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    assert "idempotency-key" in answer.headers["Access-Control-Allow-Headers"]
    assert "Access-Control-Allow-Credentials" not in answer.headers
    assert "X-Request-ID" in answer.headers


def test_every_answer_may_be_read(page, clip):
    with clip.open("rb") as body:
        created = page.post("/v1/upscale", files={"file": body}, headers={"Idempotency-Key": "1"})
    stored = page.get(created.json()["render"]["inputFileURL"], headers={"Range": "bytes=0-9"})
    answers = [
        created,
        stored,
        page.get("/v1/renders/none"),
        page.get("/nothing"),
        page.put("/v1/upscale"),
        page.get("/v1/files", headers={"Authorization": "Bearer none"}),
        page.post("/v1/upscale", json={"file_id": "x" * 100_000}),
    ]

    assert [answer.status_code for answer in answers] == [200, 206, 404, 404, 405, 401, 413]
    for answer in answers:
        assert allowed_origin(answer) == ORIGIN
        assert "Origin" in answer.headers["Vary"]
        exposed = answer.headers["Access-Control-Expose-Headers"].lower().split(", ")
        assert {"x-request-id", "location", "retry-after", "content-range", "etag"} <= set(exposed)


def test_a_page_of_another_origin_may_not(page):
    preflight = page.options("/v1/upscale", headers=PREFLIGHT | {"Origin": "https://other.example.com"})
    answer = page.get("/v1/renders", headers={"Origin": "https://other.example.com"})

    assert preflight.status_code == 400
    assert preflight.json() == {"errors": [{"message": "Pages of this origin may not send this request."}]}
    assert answer.status_code == 200  # whether the page may see it is for the browser to say
    assert allowed_origin(preflight) is None and allowed_origin(answer) is None


def test_all_pages_may_where_the_operator_says_so(serve, settings, key):
    client = serve(settings.model_copy(update={"cors_origins": ("*",)}), key=key)

    for answer in (
        client.options("/v1/upscale", headers=PREFLIGHT),
        client.get("/v1/renders", headers={"Origin": ORIGIN}),
    ):
        assert allowed_origin(answer) == "*"
        assert "Access-Control-Allow-Credentials" not in answer.headers


def test_none_may_unless_the_operator_says_so(client):
    preflight = client.options("/v1/upscale", headers=PREFLIGHT)

    # As any OPTIONS: nothing in it lets a browser go on.
    assert (preflight.status_code, preflight.headers["Allow"]) == (204, "POST, OPTIONS")
    assert allowed_origin(preflight) is None
    assert allowed_origin(client.get("/v1/renders", headers={"Origin": ORIGIN})) is None


def test_the_setting(monkeypatch):
    monkeypatch.setenv("REGEN_CORS_ORIGINS", f"{ORIGIN}, http://localhost:5173")
    assert Settings().cors_origins == (ORIGIN, "http://localhost:5173")
    for faulty in ("app.example.com", f"{ORIGIN}/", f"{ORIGIN}/page", f"{ORIGIN},,"):
        monkeypatch.setenv("REGEN_CORS_ORIGINS", faulty)
        with pytest.raises(ValidationError):
            Settings()
