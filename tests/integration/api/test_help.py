"""The pages of help, as scripts/site makes them, and what a browser lets them do."""

import base64
import hashlib

import pytest

from app.http import help_pages

SCRIPT = 'document.body.dataset.theme = "auto";'


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.setattr(help_pages, "SITE", tmp_path / "site")
    (tmp_path / "site" / "docs").mkdir(parents=True)
    (tmp_path / "outside.html").write_text("outside")
    page = tmp_path / "site" / "docs" / "index.html"
    page.write_text(f"<!doctype html><title>Help</title><script>{SCRIPT}</script>")
    (tmp_path / "site" / "objects.inv").write_text("no page's")
    return page


def test_the_first_page_needs_no_key_and_works_below_any_path(client, site):
    for address, target in (("/help", "help/docs/index.html"), ("/help/", "docs/index.html")):
        answer = client.get(address, follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (307, target)
    answer = client.get("/help", follow_redirects=True)
    assert answer.text == site.read_text() and answer.headers["content-type"] == "text/html; charset=utf-8"
    again = client.get("/help/docs/index.html", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304


def test_only_the_sites_own_scripts_run(client, site):
    policy = client.get("/help/docs/index.html").headers["content-security-policy"]
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    assert f"script-src 'self' 'sha256-{digest}';" in policy and "default-src 'none'" in policy


@pytest.mark.parametrize(
    "path", ["nothing.html", "objects.inv", "docs", "../outside.html", "%2e%2e/outside.html"]
)
def test_nothing_else_is_there(client, site, path):
    answer = client.get(f"/help/{path}")
    assert answer.status_code == 404 and answer.json()["errors"]


def test_without_pages_a_sentence_says_how_to_make_them(client, site, monkeypatch, tmp_path):
    monkeypatch.setattr(help_pages, "SITE", tmp_path / "nothing")
    answer = client.get("/help/docs/index.html")
    assert answer.status_code == 404 and "scripts/site" in answer.json()["errors"][0]["message"]
