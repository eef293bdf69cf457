"""The console over HTTP: its page, its files, the link that signs in once."""

import posixpath
import re

import pytest

from app.console import sign_in
from app.console.sign_in import SignInCode


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/", "text/html"),
        ("/console/app.js", "text/javascript"),
        ("/console/views/renders.js", "text/javascript"),
        ("/console/style.css", "text/css"),
        ("/console/icon.svg", "image/svg+xml"),
    ],
)
def test_files_are_served_without_a_key(stranger, path, media_type):
    answer = stranger.get(path)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith(media_type)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert stranger.get(path, headers={"If-None-Match": answer.headers["ETag"]}).status_code == 304


def test_the_page_names_files_that_never_change(stranger):
    page = stranger.get("/")
    assert page.headers["Cache-Control"] == "no-cache"
    named = re.findall(r'(?:href|src)="([^"]+)"', page.text)
    for address in named:
        assert not address.startswith("/"), "below the path of a proxy"
        answer = stranger.get(f"/{address}")
        assert answer.status_code == 200, address
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    of_another_version = re.sub("/v[0-9a-f]{4}", "/v0000", named[-1])
    answer = stranger.get(f"/{of_another_version}")
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-cache")


def test_the_page_names_what_its_first_view_needs_so_that_a_browser_asks_for_all_at_once(stranger):
    named = set(re.findall(r'"(console/v[0-9a-f]{16}/[^"]+[.]js)"', stranger.get("/").text))

    def walk(address: str, found: set[str]) -> set[str]:
        if address not in found:
            found.add(address)
            for other in re.findall(r'from "([.]+/[^"]+)"', stranger.get(f"/{address}").text):
                walk(posixpath.normpath(posixpath.join(posixpath.dirname(address), other)), found)
        return found

    root = "/".join(min(named).split("/")[:2])
    first = walk(f"{root}/app.js", set()) | walk(f"{root}/views/new_renders.js", set())
    assert named == first
    assert f"{root}/views/operations.js" not in named, "what is shown later is loaded later"


@pytest.mark.parametrize(
    "path",
    [
        "routes.py",
        "v0123456789abcdef/../../routes.py",
        "v0123456789abcdef/v0123456789abcdef/app.js",
        "index.html",
        "../routes.py",
        "%2e%2e/routes.py",
        "..%2fsign_in.py",
        "tsconfig.json",
        "views",
        "nothing.js",
    ],
)
def test_nothing_else_is_served(stranger, path):
    assert stranger.get(f"/console/{path}").status_code == 404


def test_the_link_signs_in_once(app, stranger, key, tmp_path):
    app.state.sign_in_code = SignInCode(tmp_path / "sign-in")
    code = app.state.sign_in_code.link("http://here").rpartition("/")[2]
    assert stranger.post("/console/sign-in", json={"code": f"{code}x"}).status_code == 401
    answer = stranger.post("/console/sign-in", json={"code": code})
    assert answer.status_code == 200, answer.text
    bearer = {"Authorization": f"Bearer {answer.json()['key']}"}
    shown = stranger.get("/v1/key", headers=bearer).json()["key"]
    assert (shown["name"], sorted(shown["scopes"])) == ("console", ["admin", "read", "write"])
    assert "expiresAt" in shown
    assert stranger.post("/console/sign-in", json={"code": code}).status_code == 401


def test_the_link_ends_after_an_hour(app, stranger, key, monkeypatch, tmp_path):
    monkeypatch.setattr(sign_in, "CODE_SECONDS", -1.0)
    app.state.sign_in_code = SignInCode(tmp_path / "sign-in")
    code = app.state.sign_in_code.link("http://here").rpartition("/")[2]
    answer = stranger.post("/console/sign-in", json={"code": code})
    assert answer.status_code == 401
    assert "older than an hour" in answer.text


def test_a_server_on_a_network_has_no_such_link(stranger):
    answer = stranger.post("/console/sign-in", json={"code": "anything"})
    assert answer.status_code == 401
    assert "key" not in answer.json()


def test_a_key_describes_itself(client, stranger):
    shown = client.get("/v1/key").json()["key"]
    assert (shown["scopes"], "hint" in shown, "secret" in shown) == (["read", "write"], True, False)
    assert stranger.get("/v1/key", headers={"Authorization": "Bearer regen_no"}).status_code == 401


def test_files_come_in_gzip_to_whoever_takes_it(stranger):
    for path in ("/", "/console/style.css", "/openapi.json"):
        plain = stranger.get(path, headers={"Accept-Encoding": "identity"})
        assert "Content-Encoding" not in plain.headers
        packed = stranger.get(path, headers={"Accept-Encoding": "br, gzip;q=0.5"})
        assert (packed.headers["Content-Encoding"], packed.headers["Vary"]) == ("gzip", "Accept-Encoding")
        assert packed.content == plain.content
        assert int(packed.headers["Content-Length"]) < len(plain.content) / 1.5
        tags = {plain.headers["ETag"], packed.headers["ETag"]}
        assert len(tags) == 2, "a tag for each"
        for answer, coding in ((plain, "identity"), (packed, "gzip")):
            known = {"If-None-Match": answer.headers["ETag"], "Accept-Encoding": coding}
            assert stranger.get(path, headers=known).status_code == 304
        assert "Content-Encoding" not in stranger.get(path, headers={"Accept-Encoding": "gzip;q=0"}).headers
