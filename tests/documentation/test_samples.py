"""Every sample of the documentation is run as it stands, or this file says why not and what shows the same."""

import contextlib
import hashlib
import json
import re
import secrets
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
import torch

from tests.documentation.samples import (
    PAGES,
    ROOT,
    Sample,
    Session,
    commands,
    new_session,
    samples,
    samples_of,
)
from tests.images.documented import Folder, text_of
from tests.servers.postgres import PostgresServer
from tests.servers.process import ServerProcess, free_port, wait_until
from tests.servers.s3 import S3Server

pytestmark = pytest.mark.slow

# Samples that another test runs: by page and language.
ELSEWHERE = {
    ("clients/pytest/README.md", "python"): "tests/documentation: test_the_fixture_of_its_page",
    ("clients/typescript/README.md", "js"): "tests/clients/test_typescript.py",
    ("docs/api.md", "js"): "tests/clients/test_typescript.py",
    ("clients/python/README.md", "python"): "tests/clients/test_with_the_mock.py",
    ("docs/events.md", "python"): "tests/integration/api/test_events.py, cut at every byte",
    ("docs/mock.md", "js"): "tests/documentation: test_the_mock",
    ("docs/mock.md", "python"): "tests/integration/mock/test_recipes.py",
    (
        "docs/kubernetes.md",
        "sh",
    ): "tests/deploy/test_kubernetes_samples.py; what kubectl does needs a cluster",
    ("docs/uploads.md", "python"): "tests/documentation: test_the_upload_in_parts",
    ("docs/webhooks.md", "python"): "tests/documentation: test_the_receiver_of_webhooks",
}
# Samples that nothing runs as they stand: by page and how they begin.
NOT_RUN = {
    ("docs/containers.md", "scripts/secrets"): "it needs a container engine: tests/images runs it",
    (
        "docs/containers.md",
        "git pull",
    ): "tests/images runs it, but for what needs the repository and a registry",
    (
        "docs/containers.md",
        "scripts/images build",
    ): "tests/images does all of it, with other words after `up`",
    ("docs/mock.md", "docker run"): "it needs a container engine: tests/images runs it",
    ("CONTRIBUTING.md", "scripts/setup --test"): "it makes the environment in which the tests run",
    ("README.md", "scripts/demo"): "it is `regen serve` and an upload; quick-start-laptop.md is run",
    (
        "clients/pytest/README.md",
        "pip install pytest-regen",
    ): "it needs the package index: tests/unit/release installs it",
    (
        "clients/typescript/README.md",
        "npm install",
    ): "it needs npm's registry: tests/clients/test_typescript.py installs it",
    ("docs/api.md", "pip install openapi-python-client"): "tests/generators runs it",
    ("docs/api.md", "from regen_api import"): "it needs the generated client: tests/generators",
    ("docs/api.md", "pip install schemathesis"): "tests/integration/api/test_schemathesis.py",
    ("docs/cli.md", "regen login"): "tests/documentation: test_the_command_line",
    ("docs/engines.md", "regen weights convert"): "tests/documentation: test_weights_of_ones_own",
    ("docs/engines.md", "regen weights add"): "tests/documentation: test_weights_of_ones_own",
    ("docs/fidelity.md", "git clone"): "it needs the internet; tests/original compares with the package",
    (
        "docs/observability.md",
        "pip install 'regen-server[tracing]'",
    ): "tests/documentation: test_traces",
    ("docs/operating.md", "# /etc/regen/regen.env"): "a file of settings: tests/deploy/test_systemd.py",
    ("docs/operating.md", "regen db upgrade"): "tests/documentation: test_quick_start_of_a_cluster",
    ("docs/operating.md", "regen backup drill.zip"): "tests/documentation: test_backup_and_restore",
    ("docs/operating.md", "regen backup regen-"): "tests/documentation: test_backup_and_restore",
    ("docs/releasing.md", ".venv/bin/python scripts/lock.py"): "it needs the package index",
    ("docs/releasing.md", "python scripts/pin_images.py"): "it needs a registry",
}


def is_run_here(sample: Sample) -> bool:
    return (sample.page, sample.language) not in ELSEWHERE and not any(
        sample.page == page and sample.text.startswith(begin) for page, begin in NOT_RUN
    )


BY_PAGE = {path.relative_to(ROOT).as_posix(): list(samples(path)) for path in PAGES}
OWN_SERVERS = {name for name in BY_PAGE if "quick-start" in name} | {"docs/mock.md"}
WITH_A_SERVER = [
    name for name, of_page in BY_PAGE.items() if name not in OWN_SERVERS and any(map(is_run_here, of_page))
]


def test_what_is_not_run_is_there() -> None:
    every = [sample for of_page in BY_PAGE.values() for sample in of_page]
    assert len(every) > 60
    stale = [
        (page, begin)
        for page, begin in NOT_RUN
        if not any(one.page == page and one.text.startswith(begin) for one in every)
    ]
    assert stale == []
    assert {key for key in ELSEWHERE if not any((one.page, one.language) == key for one in every)} == set()


# What the answers of the pages in JSON are, by the property that they begin with.
SHAPES = {
    "render": "RenderBody",
    "errors": "ErrorsBody",
    "estimate": "EstimateBody",
    "usage": "UsageBody",
    "preview": "PreviewBody",
    "quality": "QualityBody",
    "stabiliseEffect": "FilterEffectBody",
}


def test_answers_in_json_are_as_the_description_has_them() -> None:
    components = json.loads((ROOT / "docs/openapi.json").read_text())["components"]
    shown = []
    for path in PAGES:
        for block in re.finditer(r"^```json\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL):
            text = block[1].strip()
            # Of some the page shows one property.
            is_part = text.startswith('"')
            answer = json.loads(f"{{{text}}}" if is_part else text)
            (name,) = list(answer)[:1]
            if name == "timestamp":  # a line of the log
                continue
            body, shape = answer[name] if is_part else answer, components["schemas"][SHAPES[name]]
            jsonschema.validate(body, {**shape, "components": components})
            assert body.keys() <= shape["properties"].keys()
            shown.append(name)
    assert set(shown) == SHAPES.keys()


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the videos that the pages name."""
    directory = tmp_path_factory.mktemp("films")
    shutil.copy(ROOT / "tests/media/bunny-240x136-25fps.mp4", directory / "clip.mp4")

    def drawn(rate: str, seconds: float, pix_fmt: str = "yuv420p") -> tuple[str, ...]:
        graph = f"testsrc2=size=64x36:rate={rate}:duration={seconds}:alpha=128,format={pix_fmt}"
        return ("-f", "lavfi", "-i", graph)

    interlaced = ("-c:v", "mpeg2video", "-flags", "+ildct+ilme")
    for name, arguments in {
        "film.mkv": (*drawn("1", 92), "-c:v", "libx264"),
        "film.mp4": (*drawn("25", 0.4), "-c:v", "libx264"),
        "film.mov": (*drawn("25", 0.4), "-c:v", "libx264"),
        "tape.ts": (*drawn("25", 0.4), *interlaced, "-vf", "setfield=tff"),
        "disc.vob": (*drawn("24000/1001", 0.5), *interlaced, "-vf", "telecine"),
        "logo.mov": (*drawn("25", 0.4, "yuva444p10le"), "-c:v", "prores_ks"),
    }.items():
        command = ("ffmpeg", "-v", "error", *arguments, str(directory / name))
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return directory


@pytest.fixture(scope="module")
def running(films: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """A session with a server; the ids of the pages stand for things that are there."""
    session = new_session(
        tmp_path_factory.mktemp("server"),
        REGEN_OUTBOUND_ALLOWED_NETWORKS="127.0.0.0/8",
        REGEN_ALLOW_FILE_URLS="true",
    )
    try:
        session.run("regen serve")
        url, key = session.replaced["http://127.0.0.1:8000"], session.replaced["regen_..."]
        session.run("regen keys create --name operator --admin")
        admin, session.replaced["regen_..."] = session.replaced["regen_..."], key
        session.environment |= {"URL": url, "KEY": key, "ADMIN": admin, "REGEN_SERVER": url, "REGEN_KEY": key}
        session.replaced |= {"https://studio.example.com": f"http://127.0.0.1:{free_port()}"}
        # Nobody listens there: other tests judge what arrives.
        session.replaced["$PRESIGNED_PUT"] = f"http://127.0.0.1:{free_port()}/result.mp4?signature=x"
        yield session
    finally:
        session.close()


@pytest.fixture
def page_session(running: Session, films: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Session:
    """A directory of its own for a page, beside the server that all share, with what the page's samples name: of a test
    of no one page, all of it.
    """
    page = request.node.callspec.params.get("page") if hasattr(request.node, "callspec") else None
    text = None if page is None else "".join(sample.text for sample in filter(is_run_here, BY_PAGE[page]))
    session = _prepared(running, films, tmp_path / "page", text)
    url, admin = session.environment["URL"], session.environment["ADMIN"]

    def workers() -> list[dict[str, Any]]:
        answer = httpx.get(f"{url}/v1/workers", headers={"X-API-Key": admin})
        found: list[dict[str, Any]] = answer.raise_for_status().json()["workers"]
        return found

    # The server answers before its worker has started.
    wait_until(workers, what="a worker is known")
    session.replaced["NAME"] = workers()[0]["name"]
    return session


def _prepared(running: Session, films: Path, directory: Path, text: str | None = None) -> Session:
    """A session with the running server or mock, in a directory with the films; what the text names is there, without a
    text everything."""
    shutil.copytree(films, directory)
    session = Session(directory, dict(running.environment), dict(running.replaced))

    def is_named(*names: str) -> bool:
        return text is None or any(name in text for name in names)

    url, headers = session.environment["URL"], {"Authorization": f"Bearer {session.environment['KEY']}"}
    with httpx.Client(base_url=url, headers=headers, timeout=60) as client:

        def uploaded(name: str) -> str:
            answer = client.post("/v1/files", files={"file": (films / name).open("rb")})
            identity: str = answer.raise_for_status().json()["file"]["id"]
            return identity

        def rendered(file_id: str, **options: Any) -> dict[str, Any]:
            answer = client.post("/v1/upscale", json={"file_id": file_id, **options})
            render: dict[str, Any] = answer.raise_for_status().json()["render"]
            return render

        of_the_render = ("RENDER_ID", "OUTPUT_FILE_URL", "THUMBNAIL_URL")
        if is_named("FILE_ID", *of_the_render):
            session.replaced["FILE_ID"] = uploaded("film.mkv")
        if is_named(*of_the_render):
            done = session.completed(rendered(session.replaced["FILE_ID"], end=2)["id"])
            values = done["id"], done["outputFileURL"], done["thumbnailURL"]
            session.replaced |= dict(zip(of_the_render, values, strict=True))
        if is_named(address := "https://example.com/clip.mp4"):
            session.replaced[address] = rendered(uploaded("film.mp4"))["inputFileURL"]
    return session


@pytest.mark.parametrize("page", WITH_A_SERVER)
def test_samples_of(page: str, page_session: Session) -> None:
    if page == "docs/limits.md":
        made = page_session.run("regen keys create --name lost")
        listed = page_session.run("regen keys list")
        assert made
        page_session.replaced["KEY_ID"] = next(
            line.split()[0].strip("│| ") or line.split()[1] for line in listed.splitlines() if "lost" in line
        )
    for sample in filter(is_run_here, BY_PAGE[page]):
        # Debian's ffmpeg has no libvmaf; that of the wheels, which most runs take, has.
        if "vmaf=" in sample.text and not _measures_vmaf():
            continue
        if "/stream.m3u8" in sample.text:
            page_session.replaced["RENDER_ID"] = _watchable_render(page_session)
        _run(sample, page_session)
        if page == "docs/webhooks.md" and "DELIVERY_ID" not in page_session.replaced:
            page_session.replaced["DELIVERY_ID"] = _first_delivery(page_session)


def _run(sample: Sample, session: Session) -> None:
    if sample.language == "python":
        session.run_python(sample.text)
    else:
        for command in commands(sample.text):
            session.run(command)


def _measures_vmaf() -> bool:
    listing = subprocess.run(
        ["ffmpeg", "-v", "error", "-filters"], capture_output=True, text=True, check=True
    )
    return " libvmaf " in listing.stdout


def _watchable_render(session: Session) -> str:
    """A completed one of several segments: others have no playlist, and the page's was deleted."""
    headers = {"Authorization": f"Bearer {session.environment['KEY']}"}
    with (session.directory / "film.mkv").open("rb") as film:
        answer = httpx.post(
            f"{session.environment['URL']}/v1/upscale",
            headers=headers,
            files={"file": film},
            data={"end": "10"},
            timeout=60,
        )
    render_id: str = answer.raise_for_status().json()["render"]["id"]
    session.completed(render_id)
    return render_id


def _first_delivery(session: Session) -> str:
    headers = {"Authorization": f"Bearer {session.environment['KEY']}"}
    address = f"{session.environment['URL']}/v1/webhook-deliveries"
    found: list[dict[str, Any]] = []

    def look() -> bool:
        found[:] = httpx.get(address, headers=headers).json()["deliveries"]
        return bool(found)

    wait_until(look, what="an event is sent")
    identity: str = found[0]["id"]
    return identity


def test_the_samples_of_containers_reach_the_engine(tmp_path: Path) -> None:
    """What `scripts/test --images` runs, with something that writes down what the engine is asked for."""
    images = tmp_path / "images"
    images.write_text(f"""#!/bin/sh
echo "${{REGEN_COMPOSE_DIRECTORY##*/}}: $*" >> {tmp_path / "asked"}
case "$*" in *logs*) echo "api-1  | API key of owner: regen_a" ;; esac
""")
    images.chmod(0o755)
    (tmp_path / "folder").mkdir()
    folder = Folder(tmp_path / "folder", images=images)
    start = text_of("containers.md", "scripts/secrets").replace("curl -s", "echo")
    assert folder.run(start, seconds=60).splitlines()[-2:] == [
        "api-1  | API key of owner: regen_a",
        "http://127.0.0.1:8000/readyz?parts",
    ]
    folder.run(text_of("containers.md", "git pull").replace("git pull && ", ""), seconds=60)
    folder.run(text_of("mock.md", "docker run"), seconds=60)
    assert (folder.path / "secrets" / "regen_secret_key").stat().st_size > 20
    assert (folder.path / ".env").read_text() == (ROOT / ".env.example").read_text()
    assert (tmp_path / "asked").read_text().splitlines() == [
        "folder: compose up --no-build --detach --wait",
        "folder: compose logs api",
        "folder: compose build --pull",
        "folder: compose up --detach --wait",
        ": docker run --rm --publish 127.0.0.1:8000:8000 regen-server:api regen mock --host 0.0.0.0",
    ]


def test_quick_start_on_a_laptop(films: Path, tmp_path: Path) -> None:
    session = new_session(tmp_path / "home")
    shutil.copy(films / "film.mp4", session.directory / "clip.mp4")
    try:
        _run_page("docs/quick-start-laptop.md", session)
    finally:
        session.close()
    assert (session.directory / "results" / "clip-4x.mp4").stat().st_size > 1000
    assert (session.directory / "clip-4x.mp4").stat().st_size > 1000


def test_quick_start_of_a_company(films: Path, tmp_path: Path) -> None:
    session = new_session(tmp_path / "home")
    shutil.copy(films / "film.mp4", session.directory / "clip.mp4")
    # What stands in front of it is in tests/integration/api/test_proxies.py.
    session.replaced["REGEN_PUBLIC_URL=https://regen.example.com"] = ""
    try:
        _run_page("docs/quick-start-company.md", session)
    finally:
        session.close()


def test_quick_start_of_a_cluster(
    films: Path, tmp_path: Path, postgres_server: PostgresServer, broker_server: Any, s3_server: S3Server
) -> None:
    session = new_session(
        tmp_path / "home", REGEN_SEGMENT_SECONDS="0.2", REGEN_BROKER_PASSWORD=broker_server.password or ""
    )
    shutil.copy(films / "film.mp4", session.directory / "clip.mp4")
    bucket = f"quick-{tmp_path.name.replace('_', '-').lower()}"[:40].strip("-")
    database_url = postgres_server.create_database()
    session.replaced |= {
        "postgresql://regen@db.internal:5432/regen": database_url,
        "redis://redis.internal:6379/0": broker_server.url,
        "REGEN_S3_ENDPOINT_URL=https://s3.internal": f"REGEN_S3_ENDPOINT_URL={s3_server.endpoint_url}",
        "REGEN_S3_BUCKET=regen": f"REGEN_S3_BUCKET={bucket}",
        "REGEN_S3_ACCESS_KEY=...": f"REGEN_S3_ACCESS_KEY={s3_server.access_key}",
        "REGEN_S3_SECRET_KEY=...": f"REGEN_S3_SECRET_KEY={s3_server.secret_key}",
        "REGEN_SECRET_KEY=...": f"REGEN_SECRET_KEY={secrets.token_hex(32)}",
        "--host 0.0.0.0": "--host 127.0.0.1",
        # Here the device of each worker is the processor.
        "--all-gpus": "--device cpu",
    }
    by_hand = [one for one in BY_PAGE["docs/operating.md"] if one.text.startswith("regen db upgrade")]
    ports = {name: str(free_port()) for name in ("9101", "9110")}
    try:
        _run_page("docs/quick-start-cluster.md", session)
        # The same by hand, on one machine more.
        session.environment["REGEN_DATA_DIR"] = str(session.directory / "another")
        session.replaced |= ports
        _run(by_hand[0], session)
        for port in ports.values():
            wait_until(partial(_has_metrics, port), seconds=60, what="a worker shows its metrics")
    finally:
        session.close()
    assert (session.directory / "results" / "clip-4x.mp4").stat().st_size > 1000


def _has_metrics(port: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return "regen_" in httpx.get(f"http://127.0.0.1:{port}/metrics").text
    return False


def _run_page(page: str, session: Session) -> None:
    for sample in filter(is_run_here, BY_PAGE[page]):
        _run(sample, session)


def test_the_mock(films: Path, tmp_path: Path) -> None:
    """Its commands; and its other language, in Node."""
    session = new_session(tmp_path / "home")
    shutil.copy(films / "film.mp4", session.directory / "clip.mp4")
    try:
        _run_page("docs/mock.md", session)
        shutil.copy(next(session.directory.glob(".ready-*")), session.directory / "ready.json")
        (program,) = [one.text for one in BY_PAGE["docs/mock.md"] if one.language == "js"]
        (session.directory / "program.mjs").write_text(program)
        if shutil.which("node"):
            command = ["node", "program.mjs"]
            answer = subprocess.run(
                command, cwd=session.directory, capture_output=True, text=True, timeout=60, check=False
            )
            assert answer.stdout == "429\ncompleted video/mp4\n", answer.stderr
    finally:
        session.close()


def test_the_upload_in_parts(page_session: Session) -> None:
    (program,) = [one.text for one in BY_PAGE["docs/uploads.md"] if one.language == "python"]
    (page_session.directory / "upload.py").write_text(program)
    environment = page_session.environment
    output = page_session.run(
        f"{sys.executable} upload.py clip.mp4 {environment['URL']} {environment['KEY']}"
    )
    assert "'width': 240" in output


def test_the_receiver_of_webhooks(page_session: Session) -> None:
    (program,) = [one.text for one in BY_PAGE["docs/webhooks.md"] if one.language == "python"]
    url, port = page_session.environment["URL"], free_port()
    headers = {"Authorization": f"Bearer {page_session.environment['KEY']}"}
    secret = httpx.get(f"{url}/v1/webhooks/secret", headers=headers).json()["secret"]["current"]
    program = program.replace("whsec_...", secret).replace("9000", str(port))
    log = page_session.directory / "receiver.log"
    receiver = ServerProcess([sys.executable, "-u", "-c", program], log=log)
    try:
        made = httpx.post(f"{url}/v1/webhooks", json={"url": f"http://127.0.0.1:{port}"}, headers=headers)
        httpx.post(
            f"{url}/v1/webhooks/{made.json()['webhook']['id']}/test", headers=headers
        ).raise_for_status()
        wait_until(lambda: "webhook.test" in log.read_text(), what=f"the event arrives: {log.read_text()}")
    finally:
        receiver.stop()


def test_the_command_line(page_session: Session) -> None:
    """`regen login` asks for the key on a terminal, or takes it from REGEN_KEY."""
    (sample,) = [one for one in BY_PAGE["docs/cli.md"] if one.text.startswith("regen login")]
    page_session.replaced["https://regen.example.com"] = page_session.environment["URL"]
    page_session.replaced["*.mp4"] = "clip.mp4 film.mp4"
    for command in commands(sample.text):
        output = page_session.run(command)
        if command.startswith("regen submit *"):
            page_session.replaced["ID"] = next(line for line in output.splitlines() if line.isalnum())


def test_weights_of_ones_own(tmp_path: Path) -> None:
    """Of a network that a user trained: of a built-in engine's architecture, and so narrow that it is quickly
    measured."""
    weights = tmp_path / "weights"
    network, session = tmp_path / "own.pth", new_session(tmp_path / "home", REGEN_WEIGHTS_DIR=str(weights))
    random = torch.Generator().manual_seed(1)
    shapes = {"0": (8, 3, 3, 3), "1": (8,), "2": (8, 8, 3, 3), "3": (8,), "4": (48, 8, 3, 3)}
    state = {
        f"body.{name}.weight": torch.randn(shape, generator=random) / 8 for name, shape in shapes.items()
    }
    state |= {f"body.{name}.bias": torch.zeros(shapes[name][0]) for name in ("0", "2", "4")}
    torch.save({"params": state}, network)
    session.replaced |= {"FILE_OR_URL": str(network), "NAME": "own-net", "TEXT": "MIT"}
    session.replaced["HEX"] = hashlib.sha256(network.read_bytes()).hexdigest()
    page = [one for one in BY_PAGE["docs/engines.md"] if one.text.startswith("regen weights")]
    for sample in page:
        # Brackets mark what may be left out.
        _run(replace(sample, text=re.sub(r"[][]", "", sample.text)), session)
    assert len(page) == 2
    assert sorted(path.name for path in weights.iterdir()) == ["own-net.safetensors", "regen-4x.safetensors"]
    assert re.search("own-net.*1.5.*MIT", session.run("regen weights list"))


def test_traces(tmp_path: Path) -> None:
    """They arrive where the variable says."""
    received: list[str] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            received.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    session = new_session(tmp_path / "home", OTEL_BSP_SCHEDULE_DELAY="100")
    (sample,) = [one for one in BY_PAGE["docs/observability.md"] if "regen-server[tracing]" in one.text]
    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        session.replaced["http://127.0.0.1:4318"] = f"http://127.0.0.1:{collector.server_port}"
        try:
            _run(sample, session)
            httpx.get(f"{session.replaced['http://127.0.0.1:8000']}/v1/engines")
            wait_until(lambda: bool(received), seconds=60, what="a trace arrives")
        finally:
            session.close()
            collector.shutdown()
    assert set(received) == {"/v1/traces"}


def test_backup_and_restore(page_session: Session, running: Session, tmp_path: Path) -> None:
    page_session.replaced["/tmp/drill"] = str(tmp_path / "drill")
    drill = [one for one in BY_PAGE["docs/operating.md"] if one.text.startswith("regen backup drill.zip")]
    for command in (part for line in commands(drill[0].text) for part in line.split(" && ")):
        if "serve" not in command:
            page_session.run(command)
    assert (tmp_path / "drill" / "regen.db").is_file()


def test_the_fixture_of_its_page(tmp_path: Path) -> None:
    (program,) = [one.text for one in BY_PAGE["clients/pytest/README.md"] if one.language == "python"]
    (tmp_path / "test_it.py").write_text(program)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:schemathesis", "test_it.py"]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "1 passed" in answer.stdout, answer.stdout


NODE = """
import { readFileSync } from "node:fs";
const [URL, key] = process.argv.slice(2);
const headers = { Authorization: `Bearer ${key}` };
const json = { ...headers, "Content-Type": "application/json" };
const file = new File([readFileSync("clip.mp4")], "clip.mp4");
const send = globalThis.fetch;
globalThis.fetch = async (address, options = {}) => {
  const answer = await send(address, options);
  const text = await answer.clone().text();
  console.log(JSON.stringify([options.method ?? "GET", address.slice(URL.length), answer.status, text]));
  return answer;
};
console.log = ((print) => (line) => typeof line === "string" && line.startsWith("[") && print(line))(console.log);
"""


@pytest.fixture(scope="module")
def reference() -> list[Sample]:
    sys.path.insert(0, str(ROOT / "docs" / "site"))
    from reference import reference_page

    text = reference_page(json.loads((ROOT / "docs" / "openapi.json").read_text()))
    return list(samples_of(text, page="docs/reference.md"))


class TestReference:
    """Every call, in three languages: each reaches its route with fields that it takes."""

    def test_in_python(
        self, reference: list[Sample], page_session: Session, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(page_session.directory)
        answers: list[tuple[str, str, int, str]] = []

        def note(answer: httpx.Response) -> None:
            answer.read()
            request = answer.request
            answers.append((request.method, request.url.path, answer.status_code, answer.text))

        url, key = page_session.environment["URL"], page_session.environment["ADMIN"]
        headers = {"Authorization": f"Bearer {key}"}
        with httpx.Client(base_url=url, headers=headers, timeout=60, event_hooks={"response": [note]}) as api:
            for sample in (one for one in reference if one.language == "python"):
                if not sample.text.startswith("import"):
                    with contextlib.suppress(httpx.HTTPStatusError, json.JSONDecodeError):
                        exec(page_session.filled_in(sample.text), {"api": api})
        self.judge(answers, reference)

    @pytest.mark.skipif(shutil.which("node") is None, reason="there is no Node")
    def test_in_javascript(self, reference: list[Sample], page_session: Session) -> None:
        self.judge_javascript(reference, page_session)

    @pytest.mark.skipif(shutil.which("node") is None, reason="there is no Node")
    def test_with_the_mock(self, reference: list[Sample], films: Path, tmp_path: Path) -> None:
        mock = new_session(tmp_path / "mock")
        try:
            mock.run("regen mock")
            mock.environment |= {"URL": mock.replaced["http://127.0.0.1:8000"], "KEY": "regen_mock_key"}
            mock.environment["ADMIN"] = "regen_mock_admin_key"
            self.judge_javascript(reference, _prepared(mock, films, tmp_path / "page"))
        finally:
            mock.close()

    def judge_javascript(self, reference: list[Sample], page_session: Session) -> None:
        calls = [
            one.text for one in reference if one.language == "js" and not one.text.startswith("const URL")
        ]
        program = NODE + "".join(
            f"await (async () => {{ {page_session.filled_in(call)} }})().catch(() => {{}});\n"
            for call in calls
        )
        (page_session.directory / "calls.mjs").write_text(program)
        environment = page_session.environment
        output = page_session.run(f"node calls.mjs {environment['URL']} {environment['ADMIN']}")
        self.judge([tuple(json.loads(line)) for line in output.splitlines()], reference)

    def test_with_curl(self, reference: list[Sample], page_session: Session) -> None:
        answers = []
        page_session.environment["KEY"] = page_session.environment["ADMIN"]
        for sample in (one for one in reference if one.language == "sh"):
            if sample.text.startswith("curl"):
                command = page_session.filled_in(sample.text).replace(
                    "curl -s", "curl -w '\\n%{method} %{http_code}' -s"
                )
                text, _, told = page_session.output_of(command).rpartition("\n")
                method, status = told.split()
                path = re.search(r"URL(/[^\s\"]*)", command)
                assert path is not None
                answers.append((method, path[1], int(status), text))
        self.judge(answers, reference)

    def judge(self, answers: list[tuple[str, str, int, str]], reference: list[Sample]) -> None:
        calls = sum(sample.language == "sh" for sample in reference) - 1
        assert len(answers) == calls, [answer[:3] for answer in answers]
        for method, path, status, text in answers:
            told = f"{method} {path}: {status} {text}"
            assert status in (200, 204, 404, 409) or path.endswith("/complete"), told
            assert "nothing at this address" not in text, told
        assert sum(status in (200, 204) for _, _, status, _ in answers) > calls / 3
