"""The console in Debian's Chromium, driven by Playwright, against a real server with its worker."""

import base64
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Server, running_server

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: scripts/setup --test")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
ACTION_SECONDS = 30


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Enlarges by nearest neighbour; `link` in its log signs the owner in. It may call this machine."""
    with running_server(
        tmp_path_factory.mktemp("console"),
        stand_in_network="true",
        segment_seconds="0.5",
        preview_cpu_pixels="2048",
        outbound_allowed_networks="127.0.0.0/8",
    ) as server:
        yield server


@pytest.fixture(scope="module")
def idle_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Without a worker, so that renders stay in the queue. It may call this machine."""
    directory = tmp_path_factory.mktemp("idle")
    with running_server(directory, "--no-worker", outbound_allowed_networks="127.0.0.0/8") as server:
        yield server


@pytest.fixture(scope="module")
def full_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Its disk counts as full."""
    free_bytes = str(2**60)
    with running_server(
        tmp_path_factory.mktemp("full"), "--no-worker", min_free_disk_bytes=free_bytes
    ) as server:
        yield server


@pytest.fixture(scope="session")
def graded_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """25 frames, each brighter than the one before by a constant step."""
    path = tmp_path_factory.mktemp("clip") / "graded.mp4"
    source = "nullsrc=size=64x48:rate=25:duration=1,format=yuv420p,geq=lum=30+N*7:cb=128:cr=128"
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", source, "-c:v", "libx264", "-qp", "4", str(path)]
    subprocess.run(command, check=True)
    return path


@pytest.fixture(scope="session")
def unplayable_clip(graded_clip: Path) -> Path:
    """The same as HEVC in Matroska, which Debian's Chromium does not play."""
    path = graded_clip.with_name("graded.mkv")
    options = ["-c:v", "libx265", "-qp", "4", "-x265-params", "log-level=none"]
    subprocess.run(["ffmpeg", "-v", "error", "-i", str(graded_clip), *options, str(path)], check=True)
    return path


# For a file alone: as long as Playwright runs, no other test of this process can run an event loop.
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("There is no Chromium: on Debian, apt install chromium.")
    with sync_api.sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser) -> Iterator[Callable[..., Any]]:
    """A new page; errors that the browser reports, refusals of the content policy among them, fail the test."""
    faults: list[str] = []
    contexts = []

    def open_one(url: str, *, expected: tuple[str, ...] = (), **options: Any) -> Any:
        context = browser.new_context(
            **{"viewport": {"width": 1440, "height": 900}, "locale": "en-GB"} | options
        )
        contexts.append(context)
        context.set_default_timeout(ACTION_SECONDS * 1000)
        page = context.new_page()

        def note(message: Any) -> None:
            if message.type == "error" and not any(one in message.text for one in expected):
                faults.append(message.text)

        page.on("console", note)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(url)
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert faults == []


@pytest.fixture
def sign_in(open_page) -> Callable[..., Any]:
    """A page that is signed in with a key."""

    def sign(url: str, key: str, **options: Any) -> Any:
        page = open_page(f"{url}/", **options)
        page.get_by_label("API key").fill(key)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("heading", name="New renders").wait_for()
        return page

    return sign


def drop(page: Any, paths: list[Path], at: str = "body") -> None:
    """Drops files as a person does, onto the element `at`."""
    files = [{"name": path.name, "content": base64.b64encode(path.read_bytes()).decode()} for path in paths]
    page.evaluate(
        """([files, at]) => {
          const dataTransfer = new DataTransfer();
          for (const { name, content } of files) {
            const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
            dataTransfer.items.add(new File([bytes], name, { type: "video/mp4" }));
          }
          const event = (name) => new DragEvent(name, { dataTransfer, bubbles: true, cancelable: true });
          const target = document.querySelector(at);
          const isLeft = target.dispatchEvent(event("dragover")) || target.dispatchEvent(event("drop"));
          if (isLeft) throw new Error("The browser leaves the page and opens the file.");
        }""",
        [files, at],
    )


def key_of(server: Server) -> str:
    return str(server.client.headers["Authorization"]).removeprefix("Bearer ")


def url_of(server: Server) -> str:
    return str(server.client.base_url).rstrip("/")


def administrators_key(server: Server) -> str:
    """Of the link that `regen serve` printed, which works once: the key is kept beside the log."""
    kept = server.data_dir / "administrator.json"
    if not kept.exists():
        code = sign_in_link(server).rpartition("/")[2]
        answer = httpx.post(f"{url_of(server)}/console/sign-in", json={"code": code})
        kept.write_text(answer.raise_for_status().text)
    return str(json.loads(kept.read_text())["key"])


def sign_in_link(server: Server) -> str:
    lines = (server.data_dir / "server.log").read_text().splitlines()
    return next(line.split()[-1] for line in lines if "#/sign-in/" in line)


def judge(page: Any, view: str) -> None:
    """Narrow and wide, light and dark: axe finds nothing serious, and nothing is out of sight at the side."""
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(axe())
    page.wait_for_function("() => !document.body.innerText.includes('Loading …')")
    for width in (360, 768, 1440):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth"), (view, width)
        ends = (
            "() => [...document.querySelectorAll('nav a')].map((link) => link.getBoundingClientRect().right)"
        )
        assert max(page.evaluate(ends), default=0) <= width, (view, width)
        # Rows of tables are cards on narrow screens; who hears them has tables all the same.
        cut = "() => [...document.querySelectorAll('.scroll')].filter((one) => one.scrollWidth > one.clientWidth)"
        assert page.evaluate(cut) == [], (view, width)
        for table in page.get_by_role("table").all():
            assert table.get_by_role("row").count() == table.locator("tr").count(), (view, width)
            assert table.get_by_role("cell").count() == table.locator("td:visible").count(), (view, width)
        for theme in () if width == 768 else ("light", "dark"):
            page.emulate_media(color_scheme=theme)
            # What differs between the themes is the contrast.
            rules = {} if theme == "light" else {"runOnly": ["color-contrast"]}
            found = page.evaluate(
                "(rules) => axe.run(document, {resultTypes: ['violations'], preload: false, ...rules})", rules
            )
            serious = [
                (one["id"], one["nodes"][0]["html"])
                for one in found["violations"]
                if one["impact"] in ("serious", "critical")
            ]
            assert serious == [], (view, width, theme)


def axe() -> str:
    """axe-core's script."""
    package = pytest.importorskip(
        "axe_playwright_python", reason="needs axe-playwright-python: scripts/setup --test"
    )
    return Path(package.__file__).with_name("axe.min.js").read_text()
