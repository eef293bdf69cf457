"""The package that is released: what is in its wheel, and that it works beside a project's own `app`."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import httpx
import pytest

PACKAGE = Path(__file__).parents[2] / "clients" / "python"

pytestmark = pytest.mark.slow


def test_the_wheel_holds_the_client_alone(tmp_path):
    source = tmp_path / "source"
    shutil.copytree(PACKAGE, source, ignore=shutil.ignore_patterns("*.egg-info", "build", "__pycache__"))
    build = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(tmp_path),
        str(source),
    ]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = [archive.read(name).decode() for name in names if name.endswith("/METADATA")]
        archive.extractall(tmp_path / "installed")
    assert wheel.name.endswith("-py3-none-any.whl")
    assert {name.partition("/")[0] for name in names} == {"regen_client", "regen_client-0.1.0.dist-info"}
    assert "regen_client/py.typed" in names
    required = [line for line in metadata.splitlines() if line.startswith("Requires-Dist")]
    assert required == ["Requires-Dist: httpx>=0.28"]

    (tmp_path / "project" / "app").mkdir(parents=True)
    (tmp_path / "project" / "app" / "__init__.py").write_text("MINE = True")
    program = (
        "import sys; sys.path[:0] = sys.argv[1:]; import app, regen_client; assert app.MINE; "
        "assert not {'worker', 'models', 'migrations', 'torch', 'fastapi'} & set(sys.modules); "
        "regen_client.AsyncRegen('http://127.0.0.1:9', 'key'); print(regen_client.client.VERSION)"
    )
    paths = [tmp_path / "project", tmp_path / "installed", Path(httpx.__file__).parents[1]]
    ran = subprocess.run(
        [sys.executable, "-I", "-c", program, *paths], check=True, capture_output=True, text=True
    )
    assert ran.stdout == "0.1.0\n"
