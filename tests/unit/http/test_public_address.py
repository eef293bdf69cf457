"""Where links lead, by the settings and by how the request came."""

import anyio
import pytest
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from app.http.access import base_url_of
from app.http.middleware import PublicPath
from app.platform.errors import InvalidRequest
from app.platform.settings import Settings

LAN = "192.168.1.5"


def request_to(host: str, *, own_address: str = LAN, scheme: str = "http") -> Request:
    return Request(
        {
            "type": "http",
            "scheme": scheme,
            "server": (own_address, 8000),
            "path": "/v1/renders",
            "headers": [(b"host", host.encode())],
        }
    )


@pytest.mark.parametrize(
    ("host", "own_address", "settings"),
    [
        ("anything.example", "127.0.0.1", {}),
        ("anything.example", "::1", {}),
        ("localhost:8000", LAN, {}),
        ("127.0.0.1:8000", LAN, {}),
        ("[::1]:8000", LAN, {}),
        (f"{LAN}:8000", LAN, {}),
        ("regen.lan", LAN, {"allowed_hosts": "regen.lan,10.0.0.5"}),
        ("Regen.LAN:8000", LAN, {"allowed_hosts": "REGEN.lan"}),
        ("10.0.0.5", LAN, {"allowed_hosts": "regen.lan, 10.0.0.5"}),
        ("anything.example", LAN, {"allowed_hosts": "*"}),
    ],
)
def test_hosts_that_links_may_name(host, own_address, settings):
    assert base_url_of(request_to(host, own_address=own_address), Settings(**settings)) == f"http://{host}"


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "192.168.1.6", "regen.lan.evil"],
)
def test_hosts_that_they_may_not(host):
    with pytest.raises(InvalidRequest, match="REGEN_ALLOWED_HOSTS"):
        base_url_of(request_to(host), Settings(allowed_hosts="regen.lan"))


def test_a_public_url_makes_the_host_unimportant():
    settings = Settings(public_url="https://example.com/regen/")

    assert settings.public_url == "https://example.com/regen"
    assert base_url_of(request_to("evil.example"), settings) == "https://example.com/regen"


@pytest.mark.parametrize(
    "url",
    [
        "example.com",
        "ftp://example.com",
        "https://",
        "https:///regen",
        "https://ann@example.com",
        "https://a/?b",
    ],
)
def test_what_is_no_public_url(url):
    with pytest.raises(ValidationError):
        Settings(public_url=url)


@pytest.mark.parametrize(
    ("public_url", "asked", "seen"),
    [
        ("https://a/regen", "/regen/v1/renders", "/v1/renders"),
        ("https://a/regen", "/v1/renders", "/v1/renders"),
        ("https://a/b/c", "/b/c/v1/renders", "/v1/renders"),
        ("https://a/b/c", "/b/v1/renders", "/b/v1/renders"),
        ("https://a/regen", "/regenerate/x", "/regenerate/x"),
        ("https://a/regen", "/regen", "/regen"),
        # One of the API's own: it could be the address of either kind of proxy.
        ("https://a/v1", "/v1/v1/renders", "/v1/v1/renders"),
        (None, "/regen/v1/renders", "/regen/v1/renders"),
    ],
)
def test_a_path_that_a_proxy_passes_on_is_taken_off(public_url, asked, seen):
    seen_paths = []

    async def application(scope, receive, send):
        seen_paths.append((scope["path"], scope["raw_path"].decode()))

    scope = {"type": "http", "path": asked, "raw_path": asked.encode()}
    scope["app"] = Starlette(routes=[Route("/v1/renders", lambda request: None)])
    anyio.run(PublicPath(application, public_url=lambda: public_url), scope, None, None)
    assert seen_paths == [(seen, seen)]
