"""The services of docker-compose.yml as processes of this machine, because there may be no container engine.

Each has the compose file's own command, environment, secret files and health check, after the variables of its image.
Only addresses, ports and directories are others.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from app.serving.broker import find_program
from tests.containers.compose import configuration, environment_of
from tests.servers.process import ServerProcess, accepts, free_port

HEALTH_SECONDS = 60.0
# Each check is a Python of its own.
HEALTH_PAUSE_SECONDS = 1.0
ONE_SHOT_SECONDS = 60.0
# What SeaweedFS's image starts it with, before the command.
SEAWEEDFS_ARGUMENTS = ("-logtostderr=true", "server", "-volume.max=0", "-master.volumeSizeLimitMB=1024")
SEAWEEDFS_INNER_PORTS = (
    *(f"{part}.port{kind}" for part in ("master", "volume", "filer") for kind in ("", ".grpc")),
    "s3.port.grpc",
)


# What the health checks of the servers call, which comes with their images.
HEALTH_PROGRAMS = {"postgres": "pg_isready", "redis": "redis-cli", "s3": "wget"}


def seaweedfs_program() -> str | None:
    """The server inside the compose file's image of the service s3, where it is installed."""
    return shutil.which("weed", path=_search_path())


class Services:
    """`secrets` is the directory that scripts/secrets filled. A service gets those that the compose file gives it."""

    def __init__(self, directory: Path, *, secrets: Path, ports: dict[int, int]) -> None:
        """`ports` are those of servers that run already, by the port that the compose file has for them."""
        self._directory = directory
        self._secrets = secrets
        self._services: dict[str, dict[str, Any]] = configuration("gpu")["services"]
        self._ports = {port: free_port() for port in (8000, 6379, 8333, 5432)} | ports
        self._metrics_ports: dict[str, int] = {}
        self._inner_ports: list[int] = []
        self._started: dict[str, ServerProcess] = {}

    def port(self, name: str, port: int) -> int:
        """Where the service's port is here."""
        if port == 9100:
            return self._metrics_ports.setdefault(name, free_port())
        return self._ports[port]

    def command(self, name: str) -> list[str]:
        command = [self._here(name, part) for part in self._services[name]["command"]]
        if name == "redis":
            program = shutil.which("redis-server") or str(find_program())
            return [program, *command[1:], "--bind", "127.0.0.1", "--port", str(self.port(name, 6379))]
        if name == "s3":
            data = self._directory / "s3-data"
            data.mkdir()
            self._inner_ports = [free_port() for _ in SEAWEEDFS_INNER_PORTS]
            inner = [
                f"-{name}={port}" for name, port in zip(SEAWEEDFS_INNER_PORTS, self._inner_ports, strict=True)
            ]
            return [str(seaweedfs_program()), *SEAWEEDFS_ARGUMENTS, f"-dir={data}", *command[1:], *inner]
        return command

    def environment(self, name: str) -> dict[str, str]:
        service = self._services[name]
        build = service.get("build", {})
        image = environment_of(build["dockerfile"], build.get("target", "gpu")) if build else {}
        own = image | service.get("environment", {})
        environment = {variable: self._here(name, value) for variable, value in own.items()}
        kept = {
            variable: os.environ[variable]
            for variable in ("REGEN_FFMPEG", "REGEN_FFPROBE")
            if variable in os.environ
        }
        return (
            environment
            | kept
            | {
                "PATH": _search_path(),
                "HOME": str(self._directory),
                "TMPDIR": str(self._directory),
                "REGEN_DATA_DIR": str(self._directory / f"{name}-data"),
                "REGEN_SECRETS_DIR": str(self.secrets_of(name)),
            }
        )

    def secrets_of(self, name: str) -> Path:
        """A directory with the service's secrets, as it finds them in /run/secrets."""
        directory = self._directory / f"{name}-secrets"
        if not directory.exists():
            directory.mkdir()
            for secret in self._services[name]["secrets"]:
                target = directory / Path(secret["target"]).name
                shutil.copy(self._secrets / secret["source"], target)  # a link out of it is not followed
        return directory

    def run(self, name: str, **more: str) -> "subprocess.CompletedProcess[str]":
        """Run a service that ends by itself. `more` are variables on top."""
        return subprocess.run(
            self.command(name),
            env=self.environment(name) | more,
            cwd=self._directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=ONE_SHOT_SECONDS,
        )

    def start(self, name: str, **more: str) -> ServerProcess:
        """Start a service and wait until its health check passes, or, where that cannot be run, until it listens."""
        process = self._started[name] = ServerProcess(
            self.command(name),
            log=self.log(name),
            environment=self.environment(name) | more,
            directory=self._directory,
        )
        port = {"redis": 6379, "s3": 8333}.get(name)
        process.wait_until(
            lambda: (
                self.is_healthy(name)
                if port is None or self.can_check(name)
                else accepts(self.port(name, port))
            ),
            seconds=HEALTH_SECONDS,
            what=f"the health check of {name} passes",
            pause_seconds=HEALTH_PAUSE_SECONDS,
        )
        return process

    def can_check(self, name: str) -> bool:
        """Whether this machine has what the service's health check calls, and the server that it asks."""
        if name == "s3" and seaweedfs_program() is None:
            return False
        return shutil.which(HEALTH_PROGRAMS.get(name, "python"), path=_search_path()) is not None

    def is_healthy(self, name: str) -> bool:
        """What the service's own health check says."""
        kind, *test = [self._here(name, part) for part in self._services[name]["healthcheck"]["test"]]
        checked = subprocess.run(
            test if kind == "CMD" else ["/bin/sh", "-c", *test],
            env=self.environment(name),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=HEALTH_SECONDS,
        )
        return checked.returncode == 0

    def grace_seconds(self, name: str) -> int:
        grace: str = self._services[name]["stop_grace_period"]
        matched = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", grace)
        assert matched, grace
        return 60 * int(matched[1] or 0) + int(matched[2] or 0)

    def log(self, name: str) -> Path:
        return self._directory / f"{name}.log"

    def kill_all(self) -> None:
        for process in reversed(self._started.values()):
            if process.status is None:
                process.kill()
        for port in (*self._inner_ports, self._ports[8333]):
            # SeaweedFS knows no other place for them.
            for socket in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                socket.unlink()

    def _here(self, name: str, text: str) -> str:
        """The text with our own addresses, ports and directories in place of the containers'."""
        text = re.sub(
            r"\b(8000|9100|8333|6379|5432)\b", lambda port: str(self.port(name, int(port[1]))), text
        )
        text = re.sub(r"(?<=[@/])(postgres|redis|s3)(?=:)", "127.0.0.1", text)
        text = text.replace("/run/secrets", str(self.secrets_of(name)))
        return text.replace("0.0.0.0", "127.0.0.1")


def _search_path() -> str:
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
