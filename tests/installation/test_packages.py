"""Installations as the pages have them, with pip and pipx, of the packages that scripts/build makes, and the samples
that need what is installed so: `scripts/test --installation`."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.documentation.samples import PAGES, ROOT, commands, run_in_bash, samples, text_of
from tests.servers.process import ServerProcess, wait_until

STEP_SECONDS = 1800
# Those of others, which come with the samples that use them.
OTHERS = ("openapi-python-client", "schemathesis")


def installations() -> list[str]:
    """Every command of the pages that installs a package of ours; comments name those for a clone of the repository."""
    found = set()
    for path in PAGES:
        for sample in samples(path):
            found |= set(re.findall(r"repository: (pip install \S+)$", sample.text, re.MULTILINE))
            if sample.language == "sh":
                found |= {
                    command.partition("#")[0].strip()
                    for command in commands(sample.text)
                    if command.startswith(("pip install", "pipx install"))
                }
    return sorted(command for command in found if not command.endswith(OTHERS))


# What each makes usable: a program, in the environment of that name.
USED = {
    "regen-server": "regen --version",
    "'regen-server[tracing]'": "python -c 'import opentelemetry.sdk.trace' && regen --version",
    "pytest-regen": "pytest --fixtures | grep regen_mock",
    "clients/pytest": "pytest --fixtures | grep regen_mock",
    "regen-client": "python -c 'import regen_client'",
    "clients/python": "python -c 'import regen_client'",
}


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with all that is released."""
    directory = tmp_path_factory.mktemp("built")
    subprocess.run([ROOT / "scripts/build", directory], check=True, timeout=STEP_SECONDS)
    return directory


class Environment:
    """A new environment of Python, first on the path; pip finds our packages in a folder, as if an index had them."""

    def __init__(self, directory: Path, built: Path | None = None) -> None:
        self.directory = directory
        subprocess.run([sys.executable, "-m", "venv", directory / "venv"], check=True)
        given = {
            name: value for name, value in os.environ.items() if not name.startswith(("REGEN_", "PYTHON"))
        }
        configured = subprocess.run(
            [sys.executable, "-m", "pip", "config", "get", "global.find-links"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        links = [given.get("PIP_FIND_LINKS", ""), configured.strip(), str(built or "")]
        self.variables = given | {
            "PATH": f"{directory}/bin:{directory}/venv/bin:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(directory),
            "PIP_FIND_LINKS": " ".join(dict.fromkeys(filter(None, links))),
            "PIPX_HOME": str(directory / "pipx"),
            "PIPX_BIN_DIR": str(directory / "bin"),
        }

    def run(self, text: str, **variables: str) -> str:
        """What bash prints for it. Fails if it fails."""
        return run_in_bash(text, self.directory, self.variables | variables, seconds=STEP_SECONDS)


@pytest.mark.parametrize("command", installations())
def test_an_installation(command: str, built: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path, built)
    for client in ("pytest", "python"):
        shutil.copytree(
            ROOT / "clients" / client,
            tmp_path / "clients" / client,
            ignore=shutil.ignore_patterns("*.egg-info", "build"),
        )
    if command.startswith("pipx"):
        environment.run("pip install --quiet pipx")
    environment.run(command)
    environment.run(USED[command.split()[2]])
    if command.endswith(" regen-server"):
        serves_the_mock(environment)


def serves_the_mock(environment: Environment) -> None:
    """The command after it on the page of the mock, at a free port."""
    regen = shutil.which("regen", path=environment.variables["PATH"])
    assert regen is not None
    ready = environment.directory / "ready.json"
    log = environment.directory / "log"
    server = ServerProcess(
        [regen, "mock", "--port", "0", "--ready-file", str(ready)],
        log=log,
        environment=environment.variables | {"REGEN_DATA_DIR": str(environment.directory / "data")},
    )
    try:
        wait_until(ready.exists, seconds=120, what=lambda: f"the mock is ready\n{log.read_text()}")
        url = re.search(r'"url": "([^"]+)"', ready.read_text())
        assert url is not None
        answer = httpx.get(f"{url[1]}/v1/engines", headers={"Authorization": "Bearer regen_mock_key"})
        assert answer.raise_for_status().json()["engines"]
    finally:
        server.stop()


def test_a_generated_client(tmp_path: Path, regen_mock) -> None:
    """docs/api.md: openapi-python-client makes it, and it lists the renders."""
    environment = Environment(tmp_path)
    (tmp_path / "docs").mkdir()
    for name in ("openapi.json", "openapi-python-client.yml"):
        shutil.copy(ROOT / "docs" / name, tmp_path / "docs")
    environment.run(text_of("docs/api.md", "pip install openapi-python-client"))
    with (ROOT / "tests/media/bunny-240x136-25fps.mp4").open("rb") as clip:
        render = (
            regen_mock.client.post("/v1/upscale", files={"file": clip}).raise_for_status().json()["render"]
        )
    program = text_of("docs/api.md", "from regen_api")
    program = program.replace("http://127.0.0.1:8000", regen_mock.url).replace("regen_...", regen_mock.key)
    (tmp_path / "program.py").write_text(program)
    assert environment.run("python program.py").startswith(f"{render['id']} ")


def test_schemathesis(tmp_path: Path, regen_mock) -> None:
    """docs/api.md: no answer is against the description."""
    environment = Environment(tmp_path)
    text = text_of("docs/api.md", "pip install schemathesis")
    environment.run(text, URL=regen_mock.url, KEY=regen_mock.key)
