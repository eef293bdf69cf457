"""The images, built, and the compose file, brought up with them: `scripts/test --images`."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

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


@pytest.fixture(scope="session")
def docker() -> Iterator[Run]:
    """The engine's client, after the images were built. An engine that this starts ends with the session."""

    def run(*arguments: str, seconds: float = STEP_SECONDS) -> str:
        return images_script("docker", *arguments, seconds=seconds)

    try:
        images_script("build", *TARGETS, seconds=BUILD_SECONDS)
        yield run
    finally:
        images_script("stop")


@pytest.fixture(scope="session")
def ports() -> dict[str, int]:
    return {"API_PORT": free_port(), "S3_PORT": free_port()}


@pytest.fixture(scope="session")
def compose(docker: Run, ports: dict[str, int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Compose, in a directory with the compose file as it is; its services are up and healthy."""
    directory = tmp_path_factory.mktemp("compose")
    shutil.copy(ROOT / "docker-compose.yml", directory)
    settings = ports | {
        "REGEN_PUBLIC_URL": f"http://127.0.0.1:{ports['API_PORT']}",
        "REGEN_S3_PUBLIC_ENDPOINT_URL": f"http://127.0.0.1:{ports['S3_PORT']}",
    }
    lines = "".join(f"{name}={value}\n" for name, value in settings.items())
    (directory / ".env").write_text((ROOT / ".env.example").read_text() + lines)
    # Read by users of the containers.
    for above in (directory, *directory.parents[:2]):
        above.chmod(0o755)
    subprocess.run([ROOT / "scripts/secrets", directory / "secrets"], check=True, capture_output=True)

    def run(*arguments: str, seconds: float = STEP_SECONDS) -> str:
        return images_script("compose", *arguments, seconds=seconds, REGEN_COMPOSE_DIRECTORY=str(directory))

    images_script("standins", seconds=BUILD_SECONDS)
    try:
        up = ("up", "--no-build", "--detach", "--wait", "--wait-timeout", str(HEALTHY_SECONDS))
        try:
            run(*up, seconds=2 * HEALTHY_SECONDS)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{run('logs', '--tail', '40')}") from error
        yield run
    finally:
        run("down", "--volumes", "--timeout", "45")
