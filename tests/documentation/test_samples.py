"""The samples of the pages are run as they stand, but for placeholders; elsewhere.py names the tests of the others."""

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
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from tests.documentation.elsewhere import claims_on
from tests.documentation.samples import (
    PAGES,
    ROOT,
    Sample,
    Session,
    commands,
    new_session,
    samples,
    samples_of,
    text_of,
)
from tests.images.documented import Folder
from tests.servers.postgres import PostgresServer
from tests.servers.process import ServerProcess, free_port, wait_until
from tests.servers.s3 import S3Server

pytestmark = pytest.mark.slow


def is_run_here(sample: Sample) -> bool:
    return not claims_on(sample)


BY_PAGE = {path.relative_to(ROOT).as_posix(): list(samples(path)) for path in PAGES}
OWN_SERVERS = {name for name in BY_PAGE if "quick-start" in name} | {"docs/mock.md"}
WITH_A_SERVER = [
    name for name, of_page in BY_PAGE.items() if name not in OWN_SERVERS and any(map(is_run_here, of_page))
]
# Commands that ask a server, of which a mock is one; the others read the directories of this machine's server.
ASKS = re.compile(r"\bcurl\b|^[A-Z]+=|^regen submit")
WITH_THE_MOCK = [
    name
    for name in WITH_A_SERVER
    if any(
        sample.language == "python" or "curl" in sample.text for sample in filter(is_run_here, BY_PAGE[name])
    )
]
on_both = pytest.mark.parametrize("place", ["server", "mock"])


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


@pytest.fixture(scope="module")
def mocked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """A session with a mock."""
    session = new_session(tmp_path_factory.mktemp("mock"))
    try:
        session.run("regen mock")
        url = session.replaced["http://127.0.0.1:8000"]
        session.environment |= {"URL": url, "KEY": "regen_mock_key", "ADMIN": "regen_mock_admin_key"}
        session.environment |= {"REGEN_SERVER": url, "REGEN_KEY": "regen_mock_key"}
        session.replaced |= {
            "regen_...": "regen_mock_key",
            "https://studio.example.com": f"http://127.0.0.1:{free_port()}",
            "$PRESIGNED_PUT": f"http://127.0.0.1:{free_port()}/result.mp4?signature=x",
        }
        yield session
    finally:
        session.close()


@pytest.fixture
def page_session(films: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Session:
    """A directory of its own for a page, beside the server or the mock that all share, with what the page's samples
    name: of a test of no one page, all of it.
    """
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    page, is_mock = parameters.get("page"), parameters.get("place") == "mock"
    text = None if page is None else "".join(sample.text for sample in filter(is_run_here, BY_PAGE[page]))
    running = request.getfixturevalue("mocked" if is_mock else "running")
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
    if text is not None and "regen.wait" in text:
        shutil.copy(films / "film.mp4", directory / "clip.mp4")  # short: it is rendered to the end
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


@pytest.mark.parametrize(
    ("page", "place"),
    [*((page, "server") for page in WITH_A_SERVER), *((page, "mock") for page in WITH_THE_MOCK)],
)
def test_samples_of(page: str, place: str, page_session: Session) -> None:
    if page == "docs/limits.md" and place == "server":
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
        _run(sample, page_session, asks=ASKS if place == "mock" else None)
        if page == "docs/webhooks.md" and "DELIVERY_ID" not in page_session.replaced:
            page_session.replaced["DELIVERY_ID"] = _first_delivery(page_session)


def _run(sample: Sample, session: Session, *, asks: re.Pattern[str] | None = None) -> None:
    """Run its commands, of which only those that a pattern finds if there is one."""
    if sample.language == "python":
        session.run_python(sample.text)
    else:
        for command in commands(sample.text):
            if asks is None or asks.search(command):
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
    start = text_of("docs/containers.md", "scripts/secrets").replace("curl -s", "echo")
    assert folder.run(start, seconds=60).splitlines()[-2:] == [
        "api-1  | API key of owner: regen_a",
        "http://127.0.0.1:8000/readyz?parts",
    ]
    folder.run(text_of("docs/containers.md", "git pull"), seconds=60)
    folder.run(text_of("docs/mock.md", "docker run"), seconds=60)
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
    ports = {name: str(free_port()) for name in ("9101", "9110")}
    try:
        _run_page("docs/quick-start-cluster.md", session)
        # The same by hand, on one machine more.
        session.environment["REGEN_DATA_DIR"] = str(session.directory / "another")
        session.replaced |= ports
        _run_page("docs/operating.md", session, begin="regen db upgrade")
        for port in ports.values():
            wait_until(partial(_has_metrics, port), seconds=60, what="a worker shows its metrics")
    finally:
        session.close()
    assert (session.directory / "results" / "clip-4x.mp4").stat().st_size > 1000


def _has_metrics(port: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return "regen_" in httpx.get(f"http://127.0.0.1:{port}/metrics").text
    return False


def _run_page(page: str, session: Session, *, begin: str | None = None) -> None:
    """The samples of a page that no other test runs, or those that begin so."""
    for sample in BY_PAGE[page]:
        if is_run_here(sample) if begin is None else sample.text.startswith(begin):
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


@on_both
def test_the_upload_in_parts(place: str, page_session: Session) -> None:
    (program,) = [one.text for one in BY_PAGE["docs/uploads.md"] if one.language == "python"]
    (page_session.directory / "upload.py").write_text(program)
    environment = page_session.environment
    output = page_session.run(
        f"{sys.executable} upload.py clip.mp4 {environment['URL']} {environment['KEY']}"
    )
    assert "'width': 240" in output


@on_both
def test_the_stream_is_followed(place: str, page_session: Session) -> None:
    """To the end; tests/integration/api/test_events.py cuts it off at every byte."""
    (program,) = [one.text for one in BY_PAGE["docs/events.md"] if one.language == "python"]
    environment, render_id = page_session.environment, page_session.replaced["RENDER_ID"]
    call = f"follow({environment['URL']!r}, {environment['KEY']!r}, {render_id!r})"
    page_session.run_python(f"{program}\nassert {call}['status'] == 'completed'")


@on_both
def test_the_receiver_of_webhooks(place: str, page_session: Session) -> None:
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


@on_both
def test_the_command_line(place: str, page_session: Session) -> None:
    """`regen login` asks for the key on a terminal, or takes it from REGEN_KEY."""
    page_session.replaced["https://regen.example.com"] = page_session.environment["URL"]
    for command in commands(text_of("docs/cli.md", "regen login")):
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
    _run_page("docs/engines.md", session, begin="regen weights")
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


def test_backup_and_restore(page_session: Session, tmp_path: Path) -> None:
    """While the server serves, into an empty database; and the drill, whose server knows the key."""
    page_session.replaced["/tmp/drill"] = str(tmp_path / "drill")
    backup, restore = commands(text_of("docs/operating.md", "regen backup regen-"))
    page_session.run(backup)
    empty = page_session.environment | {"REGEN_DATA_DIR": str(tmp_path / "empty")}
    Session(page_session.directory, empty).run(restore)
    assert (tmp_path / "empty" / "regen.db").is_file()
    try:
        _run_page("docs/operating.md", page_session, begin="regen backup drill.zip")
        url = page_session.replaced["http://127.0.0.1:8001"]
        headers = {"Authorization": f"Bearer {page_session.environment['KEY']}"}
        assert httpx.get(f"{url}/v1/renders", headers=headers).status_code == 200
    finally:
        page_session.close()


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


@on_both
class TestReference:
    """Every call, in three languages: each reaches its route with fields that it takes."""

    def test_in_python(
        self, place: str, reference: list[Sample], page_session: Session, monkeypatch: pytest.MonkeyPatch
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
    def test_in_javascript(self, place: str, reference: list[Sample], page_session: Session) -> None:
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

    def test_with_curl(self, place: str, reference: list[Sample], page_session: Session) -> None:
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
