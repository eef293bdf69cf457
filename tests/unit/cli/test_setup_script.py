import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def setup(tmp_path):
    """Runs a copy of scripts/setup in a directory of its own."""
    (tmp_path / "scripts").mkdir()
    for name in ("scripts/setup", "pyproject.toml", "setup.py", "constraints.txt", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path / name)

    def run(*arguments, **environment):
        return subprocess.run(
            [tmp_path / "scripts" / "setup", *arguments],
            capture_output=True,
            text=True,
            env={"PATH": "/usr/bin:/bin", **environment},
        )

    return run


def test_it_explains_itself(setup):
    answer = setup("--help")
    assert answer.returncode == 0
    assert "--test" in answer.stdout


def test_an_unknown_option_is_refused(setup, tmp_path):
    answer = setup("--tests")
    assert answer.returncode == 1
    assert "--tests" in answer.stderr
    assert not (tmp_path / ".venv").exists()


def test_a_python_that_will_not_do_is_told(setup, tmp_path):
    answer = setup(PYTHON="/bin/false")
    assert answer.returncode == 1
    assert "Python 3.11" in answer.stderr
    assert not (tmp_path / ".venv").exists()


def test_without_any_python_the_way_to_one_is_told(setup, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("bash", "dirname", "sed", "cat", "cksum"):
        (tools / tool).symlink_to(shutil.which(tool))
    answer = setup(PATH=str(tools))
    assert answer.returncode == 1
    assert "apt install" in answer.stderr


@pytest.mark.slow
def test_what_is_set_up_already_is_left_alone(setup, tmp_path):
    venv = tmp_path / ".venv"
    (venv / "bin").mkdir(parents=True)
    python = venv / "bin" / "python"
    python.write_text("#!/bin/sh\necho Python 3.11.0\n")
    python.chmod(0o755)
    (venv / "share" / "regen-server" / "weights").mkdir(parents=True)
    (venv / "share" / "regen-server" / "weights" / "engine.safetensors").touch()
    (tmp_path / "app" / "http" / "site").mkdir(parents=True)
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "npm").symlink_to("/bin/false")  # fetches nothing
    programs = {"REGEN_FFMPEG": "/bin/true", "REGEN_FFPROBE": "/bin/true", "PATH": f"{tools}:/usr/bin:/bin"}
    first = setup(**programs)
    assert first.returncode == 0, first.stderr
    assert "Installing" in first.stdout
    assert setup(**programs).stdout == ""
    assert "Installing" in setup("--test", **programs).stdout
    assert setup("--test", **programs).stdout == ""
    with (tmp_path / "constraints.txt").open("a") as constraints:
        constraints.write("# changed\n")
    assert "worker,test" in setup(**programs).stdout
