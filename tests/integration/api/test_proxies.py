"""The API behind the proxies that `deploy/` configures: nginx and Caddy of the system."""

import contextlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
from fastapi import FastAPI

from app.main import create_app
from tests.servers.process import free_port, wait_until
from tests.servers.proxies import caddy, needs, nginx
from tests.servers.relay import Relay, relay_to
from tests.servers.serving import serving

pytestmark = pytest.mark.slow

# More than nginx allows by default (1 MB), and than a proxy reads ahead.
PADDING = b"\x00\x40\x00\x00free" + bytes(4 * 1024**2 - 8)
FIRST_BYTES = 2 * 1024**2


@dataclass(frozen=True, kw_only=True)
class Behind:
    """A client of a server behind a proxy, by its public URL; what the server is; and the way between the two."""

    client: httpx.Client
    url: str
    app: FastAPI
    relay: Relay


@pytest.fixture
def behind(settings, database, key, tmp_path: Path) -> Iterator[Callable[..., Behind]]:
    with contextlib.ExitStack() as stack:

        def start(proxy, path: str, strips: bool) -> Behind:
            port = free_port()
            url = f"http://127.0.0.1:{port}{path}"
            app = create_app(settings.model_copy(update={"public_url": url}))
            relay = stack.enter_context(relay_to(urlsplit(stack.enter_context(serving(app))).port))
            folder = tmp_path / "proxy"
            folder.mkdir()
            stack.enter_context(proxy(folder, port=port, server_port=relay.port, path=path, strips=strips))
            headers = {"Authorization": f"Bearer {key}"}
            client = stack.enter_context(httpx.Client(base_url=url, headers=headers, timeout=60))
            return Behind(client=client, url=url, app=app, relay=relay)

        yield start


@pytest.mark.parametrize(
    ("proxy", "path", "strips"),
    [
        (nginx, "", True),
        (nginx, "/regen", True),
        (nginx, "/a/b", False),
        (caddy, "", True),
        (caddy, "/a/b", True),
    ],
)
def test_everything_works_behind_the_shipped_proxies(behind, proxy, path, strips, clip):
    it = behind(proxy, path, strips)
    content = clip.read_bytes() + PADDING

    answer = it.client.post("/v1/upscale", **unbuffered(it.app, content))
    assert answer.status_code == 200, answer.text
    render = answer.json()["render"]
    assert answer.headers["Location"] == f"{it.url}/v1/renders/{render['id']}"
    assert it.client.get(answer.headers["Location"]).json()["render"]["id"] == render["id"]

    link = render["inputFileURL"]
    assert link.startswith(f"{it.url}/storage/")
    with httpx.Client() as stranger:
        whole = stranger.get(link)
        assert (whole.status_code, whole.content) == (200, content)
        part = stranger.get(link, headers={"Range": "bytes=10-19"})
        assert (part.status_code, part.content) == (206, content[10:20])
        head = stranger.head(link)
        assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(content)))
        assert stranger.get(link, headers={"If-None-Match": head.headers["ETag"]}).status_code == 304
        assert stranger.post(f"{it.url}/v1/upscale", content=PADDING).status_code == 401

    with it.client.stream("GET", f"/v1/renders/{render['id']}/events") as events:
        told = list(iter(partial(next, events.iter_lines()), ""))
    assert json.loads(told[2].removeprefix("data: "))["status"] == "queued"

    before = it.relay.accepted
    for _ in range(20):
        it.client.get(f"/v1/renders/{render['id']}").raise_for_status()
    assert it.relay.accepted - before <= 1, "connections to the server are kept"

    it.client.post("/v1/upscale", json={"file_id": render["fileId"]}).raise_for_status()
    first = it.client.get("/v1/renders?limit=1").json()
    second = it.client.get("/v1/renders", params={"cursor": first["nextCursor"]}).json()
    assert [row["id"] for row in second["renders"]] == [render["id"]]

    assert it.client.get("/openapi.json").json()["servers"] == [{"url": it.url}]
    page = it.client.get("/docs")
    for address in re.findall(r"""(?:src|href)="([^"]+)"|url: '([^']+)'""", page.text):
        asked = urljoin(str(page.url), "".join(address))
        assert asked.startswith(f"{it.url}/")
        assert it.client.get(asked).status_code == 200, asked


def unbuffered(app: FastAPI, content: bytes) -> dict:
    """A chunked upload that goes on once the server has had its beginning."""

    def received() -> float:
        return next(iter(app.state.metrics.upload_bytes.collect())).samples[0].value

    def body() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="clip.mp4"\r\n\r\n'
        yield content[:FIRST_BYTES]
        wait_until(lambda: received() > FIRST_BYTES / 2, what="the server has the beginning")
        yield content[FIRST_BYTES:] + b"\r\n--b--\r\n"

    return {"content": body(), "headers": {"Content-Type": "multipart/form-data; boundary=b"}}


@pytest.mark.parametrize(("proxy", "path"), [(nginx, "/a/b"), (caddy, "/regen")])
def test_the_page_in_a_browser(behind, proxy, path: str, tmp_path: Path):
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        needs("chromium")
    it = behind(proxy, path, strips=True)

    def shown(address: str) -> str:
        """The page as a browser has it after its scripts, which report no error."""
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"]
        profile = f"--user-data-dir={tmp_path / 'profile'}"
        command = [chromium, *flags, profile, "--dump-dom", "--virtual-time-budget=5000", address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
        return done.stdout

    reference = shown(f"{it.url}/docs")
    assert "Failed to load" not in reference
    operations = sum(map(len, it.client.get("/openapi.json").json()["paths"].values()))
    assert reference.count('class="opblock ') >= operations
    assert f'value="{it.url}"' in reference, "requests that are tried out go there"
    assert '<label for="key">API key</label>' in shown(f"{it.url}/"), "the console asks who it is"
