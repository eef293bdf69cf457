"""The console's files: how they are served, and what they hold."""

import gzip
import re
from pathlib import Path

import pytest

from app.console.routes import STATIC, page_headers
from app.platform.settings import Settings

FILES = [path for path in STATIC.rglob("*") if path.suffix in (".js", ".css", ".html", ".svg")]
LARGEST_BYTES = 150_000


def test_it_is_small():
    assert sum(len(gzip.compress(path.read_bytes())) for path in FILES) < LARGEST_BYTES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_it_asks_no_other_host(path: Path):
    hosts = re.findall(r"https?://([^/\"'`\s$)]+)", path.read_text())
    assert set(hosts) <= {"www.w3.org", "example.com"}


def test_every_module_that_is_imported_is_there():
    for path in FILES:
        for name in re.findall(r"""(?:from|import)\s+["'](\.[^"']+)["']""", path.read_text()):
            assert (path.parent / name).is_file(), f"{path.name} imports {name}"


def test_the_policy_allows_neither_inline_scripts_nor_eval():
    policy = page_headers(Settings())["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy


def test_the_policy_lets_videos_come_from_the_object_store():
    settings = Settings(
        s3_endpoint_url="http://inside:9000", s3_public_endpoint_url="https://videos.example.com"
    )
    policy = page_headers(settings)["Content-Security-Policy"]
    assert "media-src 'self' https://videos.example.com https://*.videos.example.com blob:" in policy
    assert "inside" not in policy
