"""scripts/audit and scripts/build, on a small project with a lock of its own; and the packages that are built."""

import ctypes
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import distribution
from pathlib import Path
from threading import Thread
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[3]
HASH = "0123456789abcdef" * 4
LOCK = f"""\
# Header.

# api
jinja2==2.11.2 \\
    --hash=sha256:{HASH}

# worker
numpy==2.4.6 ; python_full_version >= '3.11' \\
    --hash=sha256:{HASH}

# torch
torch==2.13.0 \\
    --hash=sha256:{HASH}
"""
PYPROJECT = """\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "regen-server"
version = "7.8.9"
[tool.setuptools]
packages = []
"""
# In place of the server's own, which take long to compile: a library, and a program.
COMPILED = {
    "worker/inference/cpu/kernels.c": "int answer(void) { return 42; }",
    "app/platform/media/launcher.c": "int main(void) { return 42; }",
}
FOUND = {
    "id": "PYSEC-2021-66",
    "details": "A slow regular expression.",
    "affected": [
        {
            "package": {"name": "jinja2", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.11.3"}]}],
        }
    ],
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything is set up there already."""
    tmp_path = tmp_path_factory.mktemp("project")
    (tmp_path / "scripts").mkdir()
    for name in ("audit", "build", "requirements.py"):
        shutil.copy(ROOT / "scripts" / name, tmp_path / "scripts" / name)
    for client in ("python", "pytest"):
        shutil.copytree(
            ROOT / "clients" / client,
            tmp_path / "clients" / client,
            ignore=shutil.ignore_patterns("*.egg-info", "build", "__pycache__"),
        )
    shutil.copy(ROOT / "setup.py", tmp_path)
    for path, program in COMPILED.items():
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(program)
    # Of its own test, because it takes seconds.
    typescript = tmp_path / "clients" / "typescript" / "build"
    typescript.parent.mkdir()
    typescript.write_text('#!/bin/sh\ntouch "$1/regen-client-0.1.0.tgz"\n')
    typescript.chmod(0o755)
    (tmp_path / "scripts" / "setup").symlink_to("/bin/true")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "requirements.lock").write_text(LOCK)
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    return tmp_path


@pytest.fixture
def osv() -> Iterator[str]:
    """The URL of a database that knows one vulnerability, and answers everything after it with an error."""

    class Database(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = {"vulns": [FOUND]} if asked["package"]["name"] == "jinja2" else {}
            self.send_response(500 if asked["package"]["name"] == "torch" else 200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Database)
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1/query"
    server.shutdown()
    server.server_close()


def run(project: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(project)}
    command = [project / "scripts" / script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_an_audit_names_what_is_vulnerable_and_fails_where_it_cannot_ask(project: Path, osv: str) -> None:
    lock = project / "requirements.lock"
    lock.write_text(LOCK.partition("# torch")[0])
    found = run(project, "audit", "--osv-url", osv)
    assert found.returncode == 1
    assert [line.split()[:4] for line in found.stdout.splitlines()[2:]] == [
        ["jinja2", "2.11.2", "PYSEC-2021-66", "2.11.3"]
    ]
    assert run(project, "audit", "--osv-url", osv, "--ignore-vuln", "PYSEC-2021-66").returncode == 0
    lock.write_text(LOCK)
    assert run(project, "audit", "--osv-url", osv, "--ignore-vuln", "PYSEC-2021-66").returncode != 0


@pytest.fixture(scope="module")
def built(project: Path) -> Path:
    """The directory with all that is released."""
    (project / "requirements.lock").write_text(LOCK)
    done = run(project, "build", "out")
    assert done.returncode == 0, done.stderr
    return project / "out"


@pytest.mark.slow
def test_a_release_has_bills_of_its_packages_with_their_hashes(built: Path) -> None:
    made = {file.name: file.read_bytes() for file in built.iterdir()}
    sums = dict(reversed(line.split()) for line in made.pop("SHA256SUMS").decode().splitlines())
    assert sums == {name: hashlib.sha256(content).hexdigest() for name, content in made.items()}
    packages = {
        "api": ["jinja2"],
        "worker": ["jinja2", "numpy", "torch"],
        "gpu": ["jinja2", "numpy", "torch"],
    }
    for image, expected in packages.items():
        bill = json.loads(made.pop(f"regen-server-7.8.9-{image}.cdx.json"))
        assert bill["bomFormat"] == "CycloneDX"
        described = bill["metadata"]["component"]
        assert (described["name"], described["version"]) == ("regen-server", "7.8.9")
        assert [component["name"] for component in bill["components"]] == expected
        assert bill["components"][0]["purl"] == "pkg:pypi/jinja2@2.11.2"
        (source,) = bill["components"][0]["externalReferences"]
        assert source["hashes"] == [{"alg": "SHA-256", "content": HASH}]
    if (Path(sys.prefix) / "npm/node_modules/.bin/openapi-typescript").exists():
        made.pop("regen-client-0.1.0.tgz")
    (compiled,) = (name for name in made if "-abi3-" in name)
    assert not compiled.startswith("regen_server-7.8.9-cp311-abi3-linux"), "no index takes it"
    assert sorted(set(made) - {compiled}) == [
        "pytest_regen-0.1.0-py3-none-any.whl",
        "pytest_regen-0.1.0.tar.gz",
        "regen_client-0.1.0-py3-none-any.whl",
        "regen_client-0.1.0.tar.gz",
        "regen_server-7.8.9-py3-none-any.whl",
        "regen_server-7.8.9.tar.gz",
    ]


def clean_environment(directory: Path, wheel: Path, *needed: str) -> Path:
    """The Python of a new environment with a wheel, and these packages with what they need, as they are here."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory], check=True)
    (site,) = directory.glob("lib/python*/site-packages")
    pip = [sys.executable, "-m", "pip", "--python", directory / "bin" / "python", "--quiet"]
    # Without a folder of their own for compiled modules, which pip would list among the files that it installs.
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPYCACHEPREFIX"}
    subprocess.run([*pip, "install", "--no-index", "--no-deps", wheel], check=True, env=own)
    todo, seen = [Requirement(line) for line in needed], set()
    while todo:
        requirement = todo.pop()
        if requirement.name in seen or (
            requirement.marker and not requirement.marker.evaluate({"extra": ""})
        ):
            continue
        seen.add(requirement.name)
        package = distribution(requirement.name)
        todo += map(Requirement, package.requires or [])
        for name in {file.parts[0] for file in package.files or []} - {"..", "__pycache__"}:
            (site / name).symlink_to(package.locate_file(name))
    return directory / "bin" / "python"


@pytest.mark.slow
def test_one_wheel_has_what_is_compiled_and_another_is_without(built: Path, tmp_path: Path) -> None:
    (compiled,) = built.glob("regen_server-7.8.9-cp311-abi3-*.whl")
    python = clean_environment(tmp_path / "compiled", compiled)
    (site,) = python.parents[1].glob("lib/python*/site-packages")
    # Under names that every CPython from 3.11 on finds.
    library = site / "worker/inference/cpu/_kernels.abi3.so"
    assert ctypes.CDLL(str(library)).answer() == 42
    if sys.platform == "linux":
        program = site / "app/platform/media/_launcher.abi3.so"
        assert subprocess.run([program], check=False).returncode == 42
    with ZipFile(built / "regen_server-7.8.9-py3-none-any.whl") as pure:
        assert not [name for name in pure.namelist() if name.endswith(".so")]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Elsewhere there is no launcher.")
def test_what_runs_from_the_source_tree_does_not_notice_a_new_build(project: Path) -> None:
    launcher = project / "app/platform/media/_launcher.abi3.so"
    source = launcher.with_name("launcher.c")
    former = launcher.with_name("_launcher.cpython-39.so")

    def build() -> None:
        command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace", "--force"]
        subprocess.run(command, cwd=project, check=True, capture_output=True)

    def start() -> int:
        return subprocess.run([launcher], check=False).returncode

    build()
    built, ends = launcher.stat(), [start()]
    former.touch()
    build()
    assert launcher.stat() == built, "the same content"
    assert not former.exists()
    source.write_text("int main(void) { return 43; }")
    building = Thread(target=build)
    building.start()
    while building.is_alive():
        ends.append(start())  # raises when there is none
    assert ends == sorted(ends)
    assert {*ends, start()} == {42, 43}
    source.write_text("no C")
    build()
    assert not launcher.exists(), "of other sources"
    source.write_text(COMPILED["app/platform/media/launcher.c"])


@pytest.mark.slow
def test_the_client_works_by_itself(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("regen_client*.whl")
    python = clean_environment(tmp_path / "environment", wheel, "httpx")
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__init__.py").write_text("MINE = True")
    program = (
        "import sys, app, regen_client, importlib.metadata as installed; assert app.MINE; "
        "regen_client.AsyncRegen('http://127.0.0.1:9', 'key'); print(regen_client.client.VERSION); "
        "print(installed.requires('regen-client'), 'py.typed' in [f.name for f in installed.files('regen-client')]); "
        "print(sorted({f.parts[0] for f in installed.files('regen-client')}))"
    )
    ran = subprocess.run([python, "-c", program], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert ran.stdout.splitlines() == [
        "0.1.0",
        "['httpx>=0.28'] True",
        "['regen_client', 'regen_client-0.1.0.dist-info']",
    ]


OWN_TESTS = """
import httpx

import app, migrations, models, worker


def test_the_projects_packages_are_its_own(regen_mock):
    assert app.MINE and worker.MINE and models.MINE and migrations.MINE
    answer = httpx.get(regen_mock.url + "/v1/engines", headers={"X-API-Key": regen_mock.key})
    assert answer.json()["engines"]
    assert [request["path"] for request in regen_mock.requests] == ["/v1/engines"]
"""


@pytest.mark.slow
def test_a_project_with_its_own_app_uses_the_pytest_plugin(built: Path, tmp_path: Path) -> None:
    """`regen` is on the path, of an environment that knows nothing of the project."""
    (wheel,) = built.glob("pytest_regen*.whl")
    python = clean_environment(tmp_path / "environment", wheel, "httpx", "pytest")
    project, programs = tmp_path / "project", tmp_path / "bin"
    for name in ("app", "worker", "models", "migrations"):
        (project / name).mkdir(parents=True)
        (project / name / "__init__.py").write_text("MINE = True")
    (project / "test_own.py").write_text(OWN_TESTS)
    programs.mkdir()
    regen = programs / "regen"
    regen.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.append({str(ROOT)!r})\nfrom regen_server import main\nmain()\n"
    )
    regen.chmod(0o755)

    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(project),
        "HOME": str(tmp_path),
    }
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    ran = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    for variable, told in (
        ("PATH", "There is no command `regen`"),
        ("PYTEST_REGEN_COMMAND", "cannot be run"),
    ):
        changed = environment | {variable: str(tmp_path / "none")}
        ran = subprocess.run(command, cwd=project, env=changed, capture_output=True, text=True, check=False)
        assert ran.returncode == 1 and told in ran.stdout
