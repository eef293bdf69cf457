"""regen-client for TypeScript: its package, installed by itself, in Node and in Chromium, against the mock, and against
servers that render, with files in a directory and in S3."""

import base64
import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.browser.conftest import browser, key_of, open_page, url_of
from tests.documentation.samples import text_of
from tests.e2e.conftest import Server, running_server
from tests.servers.forked import ForkedProcess
from tests.servers.relay import Cut, Relay, relay_to
from tests.servers.s3 import S3Server

__all__ = ["browser", "open_page"]

ROOT = Path(__file__).parents[2]
TOOLS = Path(sys.prefix) / "npm"
PROGRAMS = Path(__file__).parent / "typescript"
MEBIBYTE = 1024 * 1024

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (TOOLS / "node_modules/.bin/openapi-typescript").exists(),
        reason="There is no openapi-typescript: scripts/setup --test installs it where npm is.",
    ),
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package, installed by the command of its page from a registry that has it alone; and nothing
    else."""
    directory = tmp_path_factory.mktemp("typescript")
    subprocess.run([ROOT / "clients/typescript/build", directory / "built", TOOLS], check=True)
    (package,) = (directory / "built").iterdir()
    (directory / "package.json").write_text('{"private": true, "type": "module"}')
    with registry_of(package) as address:
        settings = {"registry": address, "cache": str(directory / "cache"), "audit": "false", "fund": "false"}
        environment = os.environ | {f"npm_config_{name}": value for name, value in settings.items()}
        install = text_of("clients/typescript/README.md", "npm install")
        subprocess.run(["bash", "-euc", install], cwd=directory, env=environment, check=True)
    shutil.copytree(PROGRAMS, directory, dirs_exist_ok=True)
    return directory


@contextlib.contextmanager
def registry_of(package: Path) -> Iterator[str]:
    """The address of a registry of npm that has one package, in one version."""

    class Registry(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != f"/{manifest['name']}":
                super().do_GET()
                return
            document = {
                "name": manifest["name"],
                "dist-tags": {"latest": manifest["version"]},
                "versions": {manifest["version"]: manifest | {"dist": dist}},
            }
            body = json.dumps(document).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with tarfile.open(package) as archive:
        content = archive.extractfile("package/package.json")
        assert content is not None
        manifest: dict[str, Any] = json.load(content)
    handler = partial(Registry, directory=package.parent)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        address = f"http://127.0.0.1:{server.server_port}"
        digest = base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
        dist = {"tarball": f"{address}/{package.name}", "integrity": f"sha512-{digest}"}
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield address
        server.shutdown()


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

    (project / "clip-4x.mp4").unlink(missing_ok=True)
    shutil.copy(clip, project / "clip.mp4")
    run_the_sample(project, regen_mock.url, regen_mock.key)
    assert (project / "clip-4x.mp4").read_bytes()[4:8] == b"ftyp"


def run_the_sample(project: Path, url: str, key: str) -> None:
    """That of its page and of docs/api.md, on `clip.mp4`."""
    (sample,) = samples("js")
    assert sample in (ROOT / "docs/api.md").read_text()
    sample = sample.replace("http://127.0.0.1:8000", url).replace("regen_...", key)
    subprocess.run(["node", "--input-type=module", "--eval", sample], cwd=project, check=True)


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
    names.append("all.ts")
    (project / "all.ts").write_text(program_of_all_names())
    command = [TOOLS / "node_modules/.bin/tsc", *options, *types, *names]
    checked = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def program_of_all_names() -> str:
    """One that names every property of the shapes that the package exports, and every field of its requests."""
    document = json.loads((ROOT / "docs/openapi.json").read_text())
    schemas = document["components"]["schemas"]
    shapes = ("Render", "VideoFile", "Estimate", "Preview", "Engine", "Usage", "Upload")
    names = {shape: sorted(schemas[shape]["properties"]) for shape in shapes}
    asked = document["paths"]["/v1/upscale"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    while "$ref" in asked:
        asked = schemas[asked["$ref"].rpartition("/")[2]]
    names["RenderOptions"] = sorted(asked["properties"].keys() - {"file", "file_id", "file_url"})
    names["PreviewOptions"] = sorted(schemas["PreviewRequest"]["properties"].keys() - {"file_id"})
    assert len(names["RenderOptions"]) > 15
    lines = [f'import type {{ {", ".join(names)} }} from "regen-client";']
    for shape, of_shape in names.items():
        types = ", ".join(f'{shape}["{name}"]' for name in of_shape)
        lines.append(f"export type Of{shape} = [{types}];")
    return "\n".join(lines)


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
    access = [regen_mock.url, regen_mock.key]
    judge_page(page.evaluate("([url, key]) => everything(url, key)", access))
    assert page.evaluate("([url, key]) => busy(url, key)", access) == [503, 3600]
    (sent,) = [one for one in regen_mock.requests if one["method"] == "PUT"]
    assert sent["status"] == 200


def judge_page(seen: dict[str, Any]) -> None:
    """What a page saw of everything."""
    output = httpx.get(seen.pop("outputFileURL")).content
    assert seen.pop("output") == hashlib.sha256(output).hexdigest()
    assert seen == {
        "size": 9 * MEBIBYTE,
        "width": 960,
        "stages": ["upload", "render", "download"],
        "name": "large-4x.mp4",
        "refused": [404, ["Render not found"], True],
    }


class Place:
    """A server that renders. What goes to and from its storage passes `relay`. `ids` are kept for later steps."""

    def __init__(self, server: Server, relay: Relay, project: Path, *, is_s3: bool) -> None:
        self.relay = relay
        self.is_s3 = is_s3
        self.key = key_of(server)
        self.ids: dict[str, str] = {}
        # S3 has an address of its own; of local storage it is that which the request came to.
        self.url = url_of(server) if is_s3 else f"http://127.0.0.1:{relay.port}"
        self._project = project

    def step(self, name: str, argument: str = "", **environment: str) -> Any:
        """What a program of Node saw that did that step of server.mjs."""
        access = {"REGEN_SERVER": self.url, "REGEN_KEY": self.key, "ARGUMENT": argument}
        command = ["node", self._project / "server.mjs", name]
        environment = os.environ | access | environment
        ran = subprocess.run(
            command, cwd=self._project, env=environment, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)


@pytest.fixture(scope="module", params=["local", "s3"])
def place(
    request: pytest.FixtureRequest,
    project: Path,
    page_address: str,
    s3_server: S3Server,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp(request.param)
    settings = {
        "stand_in_network": "true",
        "segment_seconds": "0.5",
        "outbound_allowed_networks": "127.0.0.0/8",
        "cors_origins": page_address.rpartition("/")[0],
    }
    is_s3 = request.param == "s3"
    if not is_s3:
        with (
            running_server(directory, **settings) as server,
            relay_to(int(url_of(server).rpartition(":")[2])) as relay,
        ):
            yield Place(server, relay, project, is_s3=False)
        return
    bucket = f"{s3_server.create_bucket()}-pages"
    with relay_to(s3_server.port) as relay:
        settings |= s3_server.settings(bucket)
        settings["s3_public_endpoint_url"] = f"http://127.0.0.1:{relay.port}"
        variables = {f"REGEN_{name.upper()}": value for name, value in settings.items()}
        log = directory / "bucket.log"
        made = ForkedProcess(["storage", "create-bucket"], log=log, environment=os.environ | variables)
        assert made.wait(60) == 0, log.read_text()
        with running_server(directory, **settings) as server:
            yield Place(server, relay, project, is_s3=True)


@pytest.fixture(scope="module")
def film(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clip and a box that says nothing, of 33 MiB: three parts."""
    path = tmp_path_factory.mktemp("film") / "large.mp4"
    content = clip.read_bytes()
    rest = 33 * MEBIBYTE - len(content)
    path.write_bytes(content + rest.to_bytes(4, "big") + b"free" + bytes(rest - 8))
    return path


class TestWithAServer:
    """One user's way, in many programs; the steps come in this order."""

    def test_an_upload_that_broke_off_is_continued_by_another_program(self, place: Place, film: Path) -> None:
        place.relay.up = Cut(20 * MEBIBYTE)
        assert place.step("upload and break off", FILM=str(film))["kind"] == "NoAnswer"
        assert place.relay.up.was_made
        place.relay.up = sent = Count()
        seen = place.step("upload", FILM=str(film))
        assert (seen["first"], seen["last"]) == (16 * MEBIBYTE, 33 * MEBIBYTE)
        assert 17 * MEBIBYTE < sent.bytes < 18 * MEBIBYTE
        file = seen["file"]
        assert (file["name"], file["sizeBytes"], file["width"]) == ("large.mp4", 33 * MEBIBYTE, 240)
        place.ids["file"] = file["id"]

    def test_a_render_is_waited_for_by_its_events(self, place: Place) -> None:
        seen = place.step("render", place.ids["file"])
        estimate, asked, render = seen["estimate"], seen["asked"], seen["render"]
        assert (estimate["output"]["frames"], asked["status"], asked["metadata"]) == (
            25,
            "queued",
            {"order": "A-17"},
        )
        assert (render["status"], render["output"]["width"], render["output"]["frames"]) == (
            "completed",
            960,
            25,
        )
        assert render["cost"] == estimate["cost"] > 0
        assert seen["seen"][-1] == {
            "stage": "render",
            "done": 25,
            "total": 25,
            "status": "completed",
        }
        assert "processing" in [one["status"] for one in seen["seen"]]
        place.ids["render"] = render["id"]

    def test_a_render_is_waited_for_without_events(self, place: Place) -> None:
        seen = place.step("poll", place.ids["file"])
        output = seen["render"]["output"]
        assert (output["width"], output["height"]) == (240, 136)
        assert output["frames"] in (12, 13)
        assert seen["polls"] > 1
        assert seen["refused"]["kind"] == "RegenError"

    def test_a_download_that_broke_off_is_continued_by_another_program(
        self, place: Place, project: Path, clip: Path
    ) -> None:
        answer = httpx.get(
            f"{place.url}/v1/renders/{place.ids['render']}", headers={"Authorization": f"Bearer {place.key}"}
        )
        url = answer.json()["render"]["outputFileURL"]
        whole = httpx.get(url).content
        half = len(whole) // 2
        assert half > 200_000
        place.relay.down = Cut(half)
        assert place.step("download and break off", place.ids["render"])["kind"] == "NoAnswer"
        (rest,) = project.glob(".out.mp4.*.part")
        began = rest.stat().st_size
        assert 0 < began < len(whole)
        place.relay.down = received = Count()
        seen = place.step("download", place.ids["render"])
        assert seen["first"] > began and seen["name"] == "large-4x.mp4"
        assert received.bytes < len(whole) - began + 100_000
        assert (project / "out.mp4").read_bytes() == whole
        # And by the same program.
        place.relay.down = Cut(half)
        assert place.step("download in one program", place.ids["render"]) == {"size": len(whole)}
        assert place.relay.down.was_made
        # What came is the film, each sample four times as wide and high; some colours change on their way through RGB.
        before, after = luma(clip, 240, 136)[:25], luma(project / "out.mp4", 960, 544)
        assert after.shape == (25, 544, 960)
        difference = np.abs(before.repeat(4, 1).repeat(4, 2) - after)
        assert difference.max() <= 3 and difference.mean() < 0.01

    def test_a_preview(self, place: Place) -> None:
        preview = place.step("preview", place.ids["file"])
        assert (preview["status"], preview["fileId"]) == ("completed", place.ids["file"])
        for name in ("beforeURL", "afterURL"):
            assert httpx.get(preview[name]).content[:4] == b"\x89PNG"

    def test_webhooks_are_held_against_their_signature(self, place: Place) -> None:
        seen = place.step("webhook", place.ids["file"])
        expected = ["render.completed", "render.processing", "render.queued"]
        assert seen["events"] == [[name, seen["id"]] for name in expected]
        assert seen["forged"]["kind"] == "InvalidWebhook"

    def test_the_sample_of_its_page(self, place: Place, project: Path) -> None:
        (project / "clip-4x.mp4").unlink(missing_ok=True)
        shutil.copy(ROOT / "tests/media/short/bunny-240x136-25fps.mp4", project / "clip.mp4")
        run_the_sample(project, place.url, place.key)
        assert (project / "clip-4x.mp4").read_bytes()[4:8] == b"ftyp"

    def test_refusals_have_sentences(self, place: Place) -> None:
        seen = place.step("errors", place.ids["file"])
        assert seen.pop("ended")["kind"] == "RenderFailed"
        assert {one["kind"] for one in seen.values()} == {"ApiError"}
        told = {name: (one["status"], len(one["messages"])) for name, one in seen.items()}
        assert told == {
            "options": (400, 2),
            "absent": (404, 1),
            "stranger": (401, 1),
            "noVideo": (415, 1),
            "tooMuch": (400, 1),
        }
        assert all(sentence for one in seen.values() for sentence in one["messages"])

    def test_in_a_page_of_another_origin(
        self, place: Place, page_address: str, open_page: Any, clip: Path
    ) -> None:
        page = open_page(page_address, expected=("404",))
        page.set_input_files("input", clip)
        place.relay.up = sent = Count()
        judge_page(page.evaluate("([url, key]) => everything(url, key)", [place.url, place.key]))
        assert sent.bytes > 9 * MEBIBYTE


def luma(path: Path, width: int, height: int) -> NDArray[np.int16]:
    """Its frames' Y, as ffmpeg decodes them."""
    raw = ("-f", "rawvideo", "-pix_fmt", "yuv420p", "-")
    done = subprocess.run(["ffmpeg", "-v", "error", "-i", path, *raw], capture_output=True, check=True)
    frames = np.frombuffer(done.stdout, np.uint8).reshape(-1, height * width * 3 // 2)
    return frames[:, : width * height].reshape(-1, height, width).astype(np.int16)


class Count:
    """Counts what passes."""

    def __init__(self) -> None:
        self.bytes = 0

    def __call__(self, piece: bytes) -> bytes:
        self.bytes += len(piece)
        return piece
