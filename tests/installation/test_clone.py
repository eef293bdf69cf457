"""The samples that take minutes, in a clone of what is committed: `scripts/test --installation`."""

import hashlib
import os
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote
from zipfile import ZipFile

import pytest

from tests.documentation.samples import ROOT, run_in_bash, text_of

STEP_SECONDS = 3000


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It has no environment yet. Tests build on each other: each sample needs those before it."""
    directory = tmp_path_factory.mktemp("clone") / "regen-server"
    subprocess.run(["git", "clone", "--quiet", ROOT, directory], check=True)
    return directory


def run(text: str, clone: Path) -> str:
    """What bash prints for a sample. Fails if it fails."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("REGEN_", "PYTHON"))}
    path = os.pathsep.join(
        part for part in os.environ["PATH"].split(os.pathsep) if not part.startswith(sys.prefix)
    )
    return run_in_bash(text, clone, own | {"PATH": path}, seconds=STEP_SECONDS)


def test_the_demo(clone: Path) -> None:
    """The first command of README.md, on a machine that has nothing of it."""
    assert not (clone / ".venv").exists()
    told = run(text_of("README.md", "scripts/demo"), clone)
    assert "Set up. The command is .venv/bin/regen." in told
    shown = subprocess.run(
        [
            *("ffprobe", "-v", "error", "-show_entries", "stream=width,height", "-of", "csv=p=0"),
            clone / "demo" / "bunny-240x136-25fps-4x.mp4",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "960,544" in shown.stdout


def test_the_environment_for_tests(clone: Path) -> None:
    """That of CONTRIBUTING.md, in which the first of the tests pass."""
    text = text_of("CONTRIBUTING.md", "scripts/setup --test")
    told = run(
        f"{text}\ncommand -v regen ruff pytest\npytest -q tests/unit/release/test_locked_packages.py", clone
    )
    for program in ("regen", "ruff", "pytest"):
        assert f"{clone}/.venv/bin/{program}" in told
    assert " passed" in told


def test_the_comparison_of_files(clone: Path) -> None:
    """That of docs/fidelity.md."""
    told = run(text_of("docs/fidelity.md", ".venv/bin/python -m bench.fidelity"), clone)
    assert " | 16 to 16 | " in told


def test_the_lock(clone: Path) -> None:
    """docs/releasing.md: what it writes passes the test of the lock."""
    lock = clone / "requirements.lock"
    before = lock.read_text()
    lock.unlink()
    run(text_of("docs/releasing.md", ".venv/bin/python scripts/lock.py\n"), clone)
    pins = {line for line in lock.read_text().splitlines() if "==" in line}
    assert pins == {line for line in before.splitlines() if "==" in line}
    run(".venv/bin/python -m pytest -q tests/unit/release/test_locked_packages.py", clone)


def test_the_lock_with_torch_of_another_index(clone: Path) -> None:
    """The same page, with an index of one file in place of PyTorch's."""
    (clone / "index" / "torch").mkdir(parents=True)
    version = "2.13.0+cpu"
    wheel = clone / "index" / "torch" / f"torch-{version}-py3-none-any.whl"
    with ZipFile(wheel, "w") as archive:
        folder = f"torch-{version}.dist-info"
        archive.writestr(f"{folder}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
        archive.writestr(f"{folder}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{folder}/RECORD", "")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (wheel.parent / "index.html").write_text(
        f'<a href="{quote(wheel.name)}#sha256={digest}">{wheel.name}</a>'
    )
    handler = partial(SimpleHTTPRequestHandler, directory=clone / "index")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as index:
        threading.Thread(target=index.serve_forever, daemon=True).start()
        text = text_of("docs/releasing.md", ".venv/bin/python scripts/lock.py --torch-index")
        address = f"http://127.0.0.1:{index.server_port}"
        run(text.replace("https://download.pytorch.org/whl/cpu", address), clone)
        index.shutdown()
    told = run(".venv/bin/python scripts/requirements.py torch-cpu", clone)
    assert f"torch=={version}" in told and digest in told
