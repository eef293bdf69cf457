"""A cluster to measure: PostgreSQL, Redis, storage, one API process and any number of workers, all on this machine.

Everything lies in a directory of its own that goes at the end, listens on loopback, and is ended by process id.
"""

import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any
from unittest.mock import patch

import httpx
import psycopg

from app import migrations
from app.platform.database import Database
from app.platform.secrets import Secrets
from app.platform.settings import Settings
from app.platform.storage import open_storage
from app.platform.storage.contract import Storage
from bench.fork_server import ForkedProcess, ForkServer
from tests.e2e.client import RegenClient
from tests.servers import postgres
from tests.servers.broker import BrokerServer
from tests.servers.process import ServerProcess
from tests.servers.s3 import S3Server

START_SECONDS = 120.0
STOP_SECONDS = 60.0
# As a server is run, not as tests run it: what is committed is on the disk, and dead rows are cleared away.
DURABLE_SETTINGS = ("max_connections=500", "shared_preload_libraries=pg_stat_statements")


class DurablePostgres(postgres.PostgresServer):
    """PostgreSQL with its own defaults, fsync and autovacuum among them, that counts every statement."""

    def start(self) -> None:
        # Whoever ends a measurement with SIGTERM leaves nothing behind either.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        with patch.object(postgres, "FAST_SETTINGS", DURABLE_SETTINGS):
            super().start()

    def create_migrated(self) -> str:
        """The URL of a database at the newest migration."""
        url = self.create_database()
        database = Database(as_sqlalchemy(url))
        try:
            migrations.upgrade(database)
        finally:
            database.close()
        return url


class WorkerProcess:
    """One worker of a cluster, and what its log says."""

    def __init__(self, process: ServerProcess) -> None:
        self.process = process
        self.started_at = time.monotonic()
        self._name: str | None = None

    @property
    def name(self) -> str | None:
        """What it is called in the rows; None until it is ready."""
        if self._name is None:
            ready = self.lines("worker_ready")
            self._name = ready[0]["worker"] if ready else None
        return self._name

    def is_ready(self) -> bool:
        return self.name is not None

    def lines(self, *events: str) -> list[dict[str, Any]]:
        """The lines of its log that are of these events."""
        found = []
        for text in self.process.log.read_text().splitlines(keepends=True):
            # The last line may be half written.
            if text.startswith("{") and text.endswith("\n"):
                line = json.loads(text)
                if line["event"] in events:
                    found.append(line)
        return found


class Cluster:
    """`settings` are those of every process, by the names that Settings has for them."""

    def __init__(self, *, storage: str = "local", **settings: str) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="regen-bench-"))
        self.workers: list[WorkerProcess] = []
        self.past_workers: list[WorkerProcess] = []
        self._stack = ExitStack()
        self._stack.callback(shutil.rmtree, self.root, ignore_errors=True)
        try:
            self._start(storage, settings)
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start_worker(
        self, *, environment: Mapping[str, str] = MappingProxyType({}), **settings: str
    ) -> WorkerProcess:
        """Returns at once; see `wait_ready`. One with settings or variables of its own has a Python of its own."""
        number = len(self.workers) + len(self.past_workers) + 1
        arguments = ("worker", "--data-dir", self.root / "data")
        log = self.root / f"worker-{number}.log"
        own = {f"REGEN_{name.upper()}": value for name, value in settings.items()} | dict(environment)
        if own:
            command: list[str | Path] = [sys.executable, "-m", "app.cli", *arguments]
            worker = WorkerProcess(ServerProcess(command, log=log, environment=self.environment | own))
        else:
            worker = WorkerProcess(ForkedProcess(self._fork_server, arguments, log=log))
        self.workers.append(worker)
        return worker

    def wait_ready(self) -> None:
        """Until all workers are."""
        for worker in self.workers:
            worker.process.wait_until(worker.is_ready, seconds=START_SECONDS, what="a worker is ready")

    def kill_worker(self, worker: WorkerProcess) -> None:
        """SIGKILL for the process alone: its ffmpeg processes have to end by themselves."""
        worker.process.send_signal(signal.SIGKILL)
        while worker.process.status is None:
            time.sleep(0.005)
        self.forget_worker(worker)

    def forget_worker(self, worker: WorkerProcess) -> None:
        """It has ended. Its log is kept."""
        self.workers.remove(worker)
        self.past_workers.append(worker)

    def stop_workers(self) -> list[int]:
        """End them in good order. Returns their exit statuses."""
        for worker in self.workers:
            worker.process.send_signal(signal.SIGTERM)
        statuses = [worker.process.stop(seconds=STOP_SECONDS) for worker in self.workers]
        self.past_workers += self.workers
        self.workers = []
        return statuses

    def query(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Rows of the database, asked by its owner."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def statuses(self, render_ids: list[str]) -> set[str]:
        """Which statuses these renders have, asked of the rows and not of the API."""
        name = self.database_url.rpartition("/")[2]
        # Another user, so that the counts of statements have none of these.
        url = self.postgres.url(name, user=postgres.SUPERUSER)
        with psycopg.connect(url, autocommit=True) as connection:
            rows = connection.execute("SELECT status FROM renders WHERE id = ANY(%s)", (render_ids,))
            return {status for (status,) in rows}

    def command(self, *arguments: str) -> str:
        """Run `regen` with the cluster's settings to its end. Returns what it said."""
        process = self._run(f"command-{arguments[0]}", *arguments, "--data-dir", self.root / "data")
        while process.status is None:
            time.sleep(0.05)
        assert process.status == os.EX_OK, process.tail()
        return process.tail()

    def _start(self, storage: str, settings: dict[str, str]) -> None:
        self.postgres = DurablePostgres()
        self._stack.callback(self.postgres.close)
        self.postgres.start()
        with self.postgres.administration() as connection:
            connection.execute("CREATE EXTENSION pg_stat_statements")
        self.database_url = self.postgres.create_migrated()
        self.broker = BrokerServer(self.root, password=secrets.token_hex())
        self._stack.callback(self.broker.close)
        self.broker.start()
        values = {
            "database_url": self.database_url,
            "broker_url": self.broker.url,
            "broker_password": self.broker.password or "",
            "secret_key": "a secret that every process of this cluster knows",
            "stand_in_network": "true",
            "device": "cpu",
            "log_format": "json",
            **settings,
            **self._storage_settings(storage),
        }
        others = {name: value for name, value in os.environ.items() if not name.startswith("REGEN_")}
        self.environment = others | {f"REGEN_{name.upper()}": value for name, value in values.items()}
        # Two cores for all: torch's own threads would only get into each other's way.
        self.environment["OMP_NUM_THREADS"] = "1"
        self.settings = Settings(data_dir=self.root / "data", **values)  # type: ignore[arg-type]
        self._fork_server = ForkServer(self.environment)
        self._stack.callback(self._fork_server.close)
        self._stack.callback(self._kill_all)
        self._start_api()
        self.storage: Storage = open_storage(self.settings, Secrets.load(self.settings))

    def _storage_settings(self, storage: str) -> dict[str, str]:
        if storage == "local":
            return {}
        server = S3Server()
        self._stack.callback(server.stop)
        server.start()
        return server.settings(server.create_bucket())

    def _start_api(self) -> None:
        ready_file = self.root / "ready.json"
        self.api = self._run(
            "api",
            *("serve", "--no-worker", "--port", "0", "--ready-file", ready_file),
            *("--data-dir", self.root / "data"),
        )
        self.api.wait_until(ready_file.exists, seconds=START_SECONDS, what="the API is ready")
        ready = json.loads(ready_file.read_text())
        self.url, self.key = ready["url"], ready["key"]
        headers = {"Authorization": f"Bearer {self.key}"}
        client = self._stack.enter_context(httpx.Client(base_url=self.url, headers=headers, timeout=90))
        self.user = RegenClient(client=client)

    def _run(self, name: str, *arguments: str | Path) -> ServerProcess:
        return ServerProcess(
            [sys.executable, "-m", "app.cli", *arguments],
            log=self.root / f"{name}.log",
            environment=self.environment,
        )

    def _kill_all(self) -> None:
        processes = [worker.process for worker in (*self.workers, *self.past_workers)]
        if hasattr(self, "api"):
            processes.append(self.api)
        for process in processes:
            if process.status is None:
                process.kill()
        # A signal may have come between the start of a process and its place in a list.
        for pid in leftovers(self.root, b"app.cli"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def leftovers(root: Path, program: bytes = b"") -> list[int]:
    """Processes whose command names that directory and the program: ffmpeg among them, which is given whole paths."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            command = (directory / "cmdline").read_bytes()
        except OSError:
            continue
        if str(root).encode() in command and program in command:
            found.append(int(directory.name))
    return found


def as_sqlalchemy(url: str) -> str:
    return url.replace("postgresql:", "postgresql+psycopg:")


def percentile(values: list[float], share: float) -> float:
    """The smallest value that at least that share of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
