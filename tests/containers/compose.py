"""docker-compose.yml as Compose itself understands it, and the Dockerfiles taken apart."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
COMPOSE_FILE = ROOT / "docker-compose.yml"
ENV_EXAMPLE = ROOT / ".env.example"
DOCKERFILES = ("Dockerfile", "Dockerfile.gpu")
PROFILES = ("gpu", "monitoring")
ONE_SHOT = ("migrate", "bucket")


def tool(name: str) -> str:
    """A program of the environment that runs the tests."""
    found = shutil.which(name, path=str(Path(sys.executable).parent))
    assert found is not None, f"{name} is not installed: scripts/setup --test"
    return found


def configuration(*profiles: str, file: Path = COMPOSE_FILE, env_file: Path = ENV_EXAMPLE) -> dict[str, Any]:
    """What `docker-compose config` makes of the file, as the command line and health checks will run."""
    shown = subprocess.run(
        [
            *(tool("docker-compose"), "--file", str(file), "--env-file", str(env_file)),
            *(part for profile in profiles for part in ("--profile", profile)),
            *("config", "--format", "json"),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},  # a variable of ours would win over the file's
    )
    assert shown.returncode == 0, shown.stderr
    assert not shown.stderr, shown.stderr
    # What it shows can be fed to it again, so each dollar sign is doubled.
    config: dict[str, Any] = json.loads(shown.stdout.replace("$$", "$"))
    return config


@dataclass(kw_only=True)
class Stage:
    """One `FROM` of a Dockerfile and the instructions after it, continued lines joined."""

    base: str
    name: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        return [argument for name, argument in self.instructions if name == instruction]


def stages(dockerfile: str) -> dict[str, Stage]:
    """The stages by their names, with the default of PYTHON_IMAGE put in."""
    text = (ROOT / dockerfile).read_text()
    text = "".join(line for line in text.splitlines(keepends=True) if not line.lstrip().startswith("#"))
    defaults: dict[str, str] = {}
    found: dict[str, Stage] = {}
    for line in text.replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        instruction, argument = line.split(maxsplit=1)
        if instruction == "FROM":
            base, _, name = re.sub(r"\$\{(\w+)\}", lambda match: defaults[match[1]], argument).partition(
                " AS "
            )
            stage = found[name] = Stage(base=base, name=name)
        elif not found:
            key, _, value = argument.partition("=")
            defaults[key] = value
        else:
            stage.instructions.append((instruction, argument))
    return found


def environment_of(dockerfile: str, target: str) -> dict[str, str]:
    """The variables that a container of that target starts with, those of its base image aside."""
    known = stages(dockerfile)
    stage = known[target]
    inherited = environment_of(dockerfile, stage.base) if stage.base in known else {}
    pairs = [pair for argument in stage.all("ENV") for pair in argument.split()]
    return inherited | dict(pair.split("=", 1) for pair in pairs)
