"""The installed `regen`, in a project that has its own `app`, `worker`, `models` and `migrations`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import regen_server

ROOT = Path(__file__).parents[3]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in regen_server.PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('the project's own was imported')")
    return tmp_path


def test_neither_the_command_nor_its_children_import_them(project: Path):
    imports = (
        f"sys.path.append({str(ROOT)!r}); import app.cli, worker, models, migrations; print(app.__file__)"
    )
    program = (
        f"import sys; sys.path.append({str(ROOT)!r}); import regen_server, subprocess; "
        f"regen_server.find_own_packages(); {imports}; sys.stdout.flush(); "
        f"subprocess.run([sys.executable, '-c', {'import sys; ' + imports!r}], check=True)"
    )
    path = os.pathsep.join([str(project), ".", str(ROOT / "docs")])
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=project,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == [str(ROOT / "app/__init__.py")] * 2


def test_what_hides_nothing_stays_on_the_path(project: Path, tmp_path_factory, monkeypatch):
    other = tmp_path_factory.mktemp("other")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(project), str(other)]))
    monkeypatch.setenv("PYTHONSAFEPATH", "")
    monkeypatch.setattr(sys, "path", [str(project), "", str(other), str(ROOT)])

    regen_server.find_own_packages()

    assert (os.environ["PYTHONPATH"], sys.path) == (str(other), [str(other), str(ROOT)])
