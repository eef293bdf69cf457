"""The installed `regen`, where PYTHONPATH and the current directory have modules of the names that it imports."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
OWN = {"app", "worker", "models", "migrations"}
# Python itself imports these before any program starts, the last for setuptools.
AT_START = {"encodings", "sitecustomize", "usercustomize", "_distutils_hack"}
# As pip and uv write it, and what a process that it started has.
STUB = f"import sys; sys.path.append({str(ROOT)!r}); from regen_server import main; sys.exit(main())"
CHILD = (
    "import json, os, subprocess, sys, re, types, app, migrations;"
    "print(json.dumps([app.__file__, os.environ.get('PYTHONPATH'), sys.path]))"
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("project")
    installed = {path.name.partition(".")[0] for path in Path(sysconfig.get_path("purelib")).iterdir()}
    for name in (OWN | sys.stdlib_module_names | installed | {"regen_client"}) - AT_START - {"regen_server"}:
        if name.isidentifier():
            (directory / f"{name}.py").write_text("raise ImportError(f'the module {__file__} was imported')")
    return directory


def run(project: Path, program: str, *arguments: str, path: str) -> subprocess.CompletedProcess[str]:
    """In a file, as the installed command is: for `-c`, Python itself imports `linecache` from 3.13 on."""
    file = project / "bin" / "regen"
    file.parent.mkdir(exist_ok=True)
    file.write_text(program)
    return subprocess.run(
        [sys.executable, "-P", str(file), *arguments],
        cwd=project,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("others", ["{project}:.", "{root}:{project}"])
def test_the_command_imports_none_of_them(project: Path, others: str):
    ran = run(project, STUB, "--version", path=others.format(project=project, root=ROOT))
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("regen ")


@pytest.mark.parametrize(("path", "kept"), [("{project}:.", None), ("{project}:{root}/docs/..", str(ROOT))])
def test_its_children_do_neither(project: Path, path: str, kept: str | None):
    """A folder that holds this package stays: nothing would be found without it."""
    program = (
        f"import sys; sys.path.append({str(ROOT)!r}); import regen_server; regen_server.leave_pythonpath();"
        f"import subprocess; subprocess.run([sys.executable, '-c', {CHILD!r}], check=True)"
    )
    ran = run(project, program, path=path.format(project=project, root=ROOT))
    assert ran.returncode == 0, ran.stderr
    package, left, folders = json.loads(ran.stdout)
    assert (package, left) == (str(ROOT / "app/__init__.py"), kept)
    assert str(project) not in folders and "" not in folders


def test_arguments_reach_it_as_they_were_given(project: Path):
    arguments = ["--version", "", "a b", "-c", "*", "é"]
    program = STUB.replace("sys.exit(main())", "main.__globals__['leave_pythonpath'](); print(sys.argv[1:])")
    ran = run(project, program, *arguments, path=str(project))
    assert ran.stdout == f"{arguments}\n", ran.stderr
