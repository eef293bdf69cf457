import anyio
import pytest
from starlette.requests import Request

from app.http.fields import EmptyParameters, is_empty, nearest_name, shown_name

UPSCALE = (
    "file",
    "file_id",
    "file_url",
    "engine",
    "target_fps",
    "retime",
    "quality",
    "priority",
    "webhook_url",
)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("targetFps", "target_fps"),
        ("Target-FPS", "target_fps"),
        ("targetfps", "target_fps"),
        ("fps", "target_fps"),
        ("Engine", "engine"),
        ("engin", "engine"),
        ("file[]", "file"),
        ("fileId", "file_id"),
        ("id", "file_id"),
        ("webhookURL", "webhook_url"),
        ("url", None),
        ("colour", None),
        ("csrf_token", None),
        ("", None),
        ("x" * 10**6, None),
    ],
)
def test_the_name_that_is_meant(name: str, meant: str | None) -> None:
    assert nearest_name(name, UPSCALE) == meant


def test_names_are_shown_safely() -> None:
    assert shown_name("a`\x1b[0m\n") == r"`a'\x1b[0m\n`"
    assert shown_name("n" * 500) == f"`{'n' * 60}…`"


def test_what_is_empty() -> None:
    assert all(is_empty(value) for value in (None, "", " ", "\t\r\n", "\u00a0"))
    assert not any(is_empty(value) for value in ("null", "0", 0, False, [], {}))


@pytest.mark.parametrize(
    ("query", "left"),
    [
        (b"cursor=&limit=2", {"limit": "2"}),
        (b"cursor", {}),
        (b"cursor=%20+&status=queued&engine=", {"status": "queued"}),
        (b"&&", {}),
        (b"signature=a%3D=&expires=1", {"signature": "a==", "expires": "1"}),
        (b"a==", {"a": "="}),
        (b"", {}),
    ],
)
def test_parameters_without_a_value_are_not_given(query: bytes, left: dict[str, str]) -> None:
    seen = {}

    async def application(scope, _receive, _send):
        scope["route"] = "found"
        seen.update(Request(scope).query_params)

    scope = {"type": "http", "path": "/v1/renders", "query_string": query, "headers": []}
    anyio.run(EmptyParameters(application), scope, None, None)
    assert seen == left
    assert scope["route"] == "found", "what routing leaves is seen outside"
