"""scripts/audit and scripts/build, on a small project with a lock of its own."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

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


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Everything is set up there already."""
    (tmp_path / "scripts").mkdir()
    for name in ("audit", "build", "requirements.py"):
        shutil.copy(ROOT / "scripts" / name, tmp_path / "scripts" / name)
    shutil.copytree(
        ROOT / "clients" / "python",
        tmp_path / "clients" / "python",
        ignore=shutil.ignore_patterns("*.egg-info", "build", "__pycache__"),
    )
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


def test_a_release_has_bills_of_its_packages_with_their_hashes(project: Path) -> None:
    done = run(project, "build", "out")
    assert done.returncode == 0, done.stderr
    made = {file.name: file.read_bytes() for file in (project / "out").iterdir()}
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
    assert sorted(made) == [
        "regen_client-0.1.0-py3-none-any.whl",
        "regen_client-0.1.0.tar.gz",
        "regen_server-7.8.9.tar.gz",
    ]
