"""The samples of docs/containers.md and docs/mock.md, run as they stand in a folder that has what they need of the
repository. `docker` is then that of scripts/images, with images that were built before."""

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
