"""The images, built, and the compose file, brought up with them: `scripts/test --images`."""

import os
import shlex
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.documentation.samples import text_of
from tests.images.documented import Folder
from tests.servers.process import free_port

ROOT = Path(__file__).parents[2]
# Where there is no engine to be had; see scripts/images.
UNAVAILABLE = 77
BUILD_SECONDS = 3600
STEP_SECONDS = 300
# The third image takes some 15 GB of disk to build: only where this names it.
GPU_WANTED = os.environ.get("REGEN_TEST_GPU_IMAGE") == "1"
TARGETS = ("api", "worker", *(("gpu",) if GPU_WANTED else ()))
HEALTHY_SECONDS = 180

Run: TypeAlias = Callable[..., str]


def images_script(*arguments: str, seconds: float = STEP_SECONDS, **environment: str) -> str:
    """What `scripts/images` prints to stdout. Fails the test with what it says to stderr."""
    done = subprocess.run(
        [ROOT / "scripts/images", *arguments],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )
    if done.returncode == UNAVAILABLE:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, f"{' '.join(arguments)}:\n{done.stdout[-4000:]}{done.stderr[-8000:]}"
    return done.stdout


def script_of_the_page(command: str, /, *, seconds: float = STEP_SECONDS, **environment: str) -> str:
    """What that command of `scripts/images` prints, as docs/containers.md has it."""
    (line,) = [
        words[1:]
        for words in map(
            partial(shlex.split, comments=True),
            text_of("docs/containers.md", "scripts/images build").splitlines(),
        )
        if words[1] == command
    ]
    return images_script(*line, seconds=seconds, **environment)


@pytest.fixture(scope="session")
def docker() -> Iterator[Run]:
    """The engine's client, after the images were built. An engine that this starts ends with the session."""

    def run(*arguments: str, seconds: float = STEP_SECONDS) -> str:
        return images_script("docker", *arguments, seconds=seconds)

    try:
        script_of_the_page("build", seconds=BUILD_SECONDS)
        if GPU_WANTED:
            images_script("build", "gpu", seconds=BUILD_SECONDS)
        yield run
    finally:
        script_of_the_page("stop")


@pytest.fixture(scope="session")
def ports() -> dict[str, int]:
    return {"API_PORT": free_port(), "S3_PORT": free_port()}


@pytest.fixture(scope="session")
def settings(ports: dict[str, int]) -> dict[str, str]:
    """Variables of the compose file's commands: ports that are free."""
    return {name: str(port) for name, port in ports.items()}


@pytest.fixture(scope="session")
def folder(docker: Run, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Where the samples of the documentation are run."""
    return Folder(tmp_path_factory.mktemp("compose"))


@pytest.fixture(scope="session")
def first_start(
    folder: Folder, ports: dict[str, int], settings: dict[str, str]
) -> Iterator[Callable[[], str]]:
    """What the first start of docs/containers.md prints, once its services are up and healthy."""
    text = text_of("docs/containers.md", "scripts/secrets")
    text = text.replace("127.0.0.1:8000", f"127.0.0.1:{ports['API_PORT']}")
    images_script("standins", seconds=BUILD_SECONDS)
    try:
        try:
            printed = folder.run(text, seconds=2 * HEALTHY_SECONDS, **settings)
        except AssertionError as error:
            logs = folder.run("docker compose logs --tail 40", seconds=STEP_SECONDS, **settings)
            raise AssertionError(f"{error}\n{logs}") from error
        yield lambda: printed
    finally:
        folder.run("docker compose down --volumes --timeout 45", seconds=STEP_SECONDS, **settings)


@pytest.fixture(scope="session")
def compose(first_start: Callable[[], str], folder: Folder, settings: dict[str, str]) -> Run:
    """Compose, in a directory with the compose file as it is; its services are up and healthy."""

    def run(*arguments: str, seconds: float = STEP_SECONDS) -> str:
        return folder.run(f"docker compose {shlex.join(arguments)}", seconds=seconds, **settings)

    return run
