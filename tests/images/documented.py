"""The samples of docs/containers.md and docs/mock.md, run as they stand in a clone of what they need of the repository.

`docker` is then that of scripts/images, with images that were built before. What differs from a machine with an engine
and a network: `--build` builds nothing, ports are free ones, and `docker compose build --pull` is only asked of an
engine that writes down what it is asked for, because there is no registry to pull from.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.documentation.samples import ROOT

# Compose builds what `--build` asks for from files that the folder does not have: `scripts/images build` did that.
DOCKER = """#!/bin/sh
if [ "$1" = compose ]; then
    shift
    for word; do
        shift
        [ "$word" = --build ] && word=--no-build
        set -- "$@" "$word"
    done
    REGEN_COMPOSE_DIRECTORY=$PWD exec {images} compose "$@"
fi
exec {images} docker "$@"
"""


# With a repository to pull from.
CLONE = """
git init --quiet --initial-branch main
git add docker-compose.yml .env.example scripts
git -c user.name=a -c user.email=a@example.com commit --quiet --message "What the samples need"
git clone --quiet --bare . "$PWD/origin.git"
git remote add origin "$PWD/origin.git"
git fetch --quiet
git branch --quiet --set-upstream-to origin/main
"""


class Folder:
    """`images` is scripts/images, or what stands for it."""

    def __init__(self, path: Path, *, images: Path = ROOT / "scripts" / "images") -> None:
        self.path = path
        (path / "bin").mkdir()
        (path / "bin" / "docker").write_text(DOCKER.format(images=images))
        (path / "bin" / "docker").chmod(0o755)
        for name in ("docker-compose.yml", ".env.example"):
            shutil.copy(ROOT / name, path)
        (path / "scripts").mkdir()
        shutil.copy(ROOT / "scripts" / "secrets", path / "scripts")
        self.run(CLONE, seconds=60)
        # Read by users of the containers.
        for above in (path, *path.parents[:2]):
            above.chmod(0o755)

    def run(self, text: str, *, seconds: float, **settings: str) -> str:
        """What bash prints for a sample. Settings are variables, which count for more than `.env`. Fails if it does."""
        environment: Mapping[str, str] = {
            **os.environ,
            **settings,
            "PATH": f"{self.path / 'bin'}:{os.environ['PATH']}",
        }
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=self.path,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout[-4000:]}{done.stderr[-8000:]}"
        return done.stdout
