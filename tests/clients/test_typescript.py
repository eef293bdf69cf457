"""regen-client for TypeScript: its package, installed by itself, in Node and in Chromium, against the mock."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.browser.conftest import browser, open_page

__all__ = ["browser", "open_page"]

ROOT = Path(__file__).parents[2]
TOOLS = Path(sys.prefix) / "npm"
PROGRAMS = Path(__file__).parent / "typescript"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (TOOLS / "node_modules/.bin/openapi-typescript").exists(),
        reason="There is no openapi-typescript: scripts/setup --test installs it where npm is.",
    ),
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed package and nothing else."""
    directory = tmp_path_factory.mktemp("typescript")
    subprocess.run([ROOT / "clients/typescript/build", directory / "built", TOOLS], check=True)
    (package,) = (directory / "built").iterdir()
    (directory / "package.json").write_text('{"private": true, "type": "module"}')
    install = ["npm", "install", "--offline", "--silent", "--no-audit", "--no-fund", package]
    subprocess.run(install, cwd=directory, check=True)
    shutil.copytree(PROGRAMS, directory, dirs_exist_ok=True)
    return directory


def test_in_node(project: Path, regen_mock, clip: Path) -> None:
    installed = [path.name for path in (project / "node_modules").iterdir() if path.name[0] != "."]
    assert installed == ["regen-client"]
    environment = os.environ | {
        "REGEN_SERVER": regen_mock.url,
        "REGEN_KEY": regen_mock.key,
        "CLIP": str(clip),
        "TMPDIR": str(project),
    }
    command = ["node", "--test", "client.test.mjs"]
    ran = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr

    (sample,) = samples("js")
    assert sample in (ROOT / "docs/api.md").read_text()
    sample = sample.replace("http://127.0.0.1:8000", regen_mock.url).replace("regen_...", regen_mock.key)
    shutil.copy(clip, project / "clip.mp4")
    subprocess.run(["node", "--input-type=module", "--eval", sample], cwd=project, check=True)
    assert (project / "clip-4x.mp4").read_bytes()[4:8] == b"ftyp"


def samples(language: str) -> list[str]:
    """Of the client's page."""
    page = (ROOT / "clients/typescript/README.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def test_its_types_in_strict_programs(project: Path) -> None:
    options = [
        "--strict",
        "--noEmit",
        "--skipLibCheck",
        "--target",
        "es2022",
        "--module",
        "nodenext",
        "--lib",
        "es2023,dom",
    ]
    types = ["--typeRoots", TOOLS / "node_modules/@types", "--types", "node"]
    names = ["types.ts"]
    for number, sample in enumerate(samples("ts")):
        names.append(f"sample-{number}.ts")
        (project / names[-1]).write_text(sample)
    assert len(names) == 3
    command = [TOOLS / "node_modules/.bin/tsc", *options, *types, *names]
    checked = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


@pytest.fixture(scope="module")
def page_address(project: Path) -> Iterator[str]:
    """The address of a page, of an origin other than the mock's."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=project)) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/page.html"
        server.shutdown()


def test_in_a_page_of_another_origin(page_address: str, open_page, regen_mock, clip: Path) -> None:
    page = open_page(page_address, expected=("503", "404"))
    page.set_input_files("input", clip)
    seen = page.evaluate("([url, key]) => everything(url, key)", [regen_mock.url, regen_mock.key])
    output = regen_mock.client.get(seen.pop("outputFileURL")).content
    assert seen.pop("output") == hashlib.sha256(output).hexdigest()
    assert seen == {
        "size": 9 * 1024 * 1024,
        "width": 960,
        "stages": ["upload", "render", "download"],
        "name": "large-4x.mp4",
        "refused": [404, ["Render not found"], True],
        "busy": [503, 3600],
    }
    (sent,) = [one for one in regen_mock.requests if one["method"] == "PUT"]
    assert sent["status"] == 200
