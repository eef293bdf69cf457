"""`regen serve` as on a laptop: SQLite, local storage, the embedded broker, in a directory of its own."""

import json
import os
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from tests.servers.process import ServerProcess

START_SECONDS = 60.0


class Laptop:
    """Started by the constructor; ended, and its directory removed, on exit. `settings` are by Settings' names.

    `open_files`: its hard limit of open files.
    """

    def __init__(self, *, with_worker: bool = False, open_files: int | None = None, **settings: str) -> None:
        self._options = [] if with_worker else ["--no-worker"]
        self._before = [] if open_files is None else ["prlimit", f"--nofile={open_files}"]
        self._stack = ExitStack()
        self.root = Path(tempfile.mkdtemp(prefix="regen-bench-"))
        self._stack.callback(shutil.rmtree, self.root, ignore_errors=True)
        try:
            self._start(settings)
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> "Laptop":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self, settings: dict[str, str]) -> None:
        ready_file = self.root / "ready.json"
        self.api = ServerProcess(
            [
                *(*self._before, sys.executable, "-m", "app.cli", "serve", *self._options, "--port", "0"),
                *("--data-dir", self.root / "data", "--ready-file", ready_file),
            ],
            log=self.root / "api.log",
            environment=clean_environment(**settings),
        )
        self._stack.callback(self.api.stop)
        self.api.wait_until(ready_file.exists, seconds=START_SECONDS, what="the API is ready")
        ready = json.loads(ready_file.read_text())
        self.url, self.key = ready["url"], ready["key"]
        self.port = urlsplit(self.url).port or 0

    def make_key(self, user_name: str) -> str:
        """The key of a new user."""
        from app.accounts import service as accounts
        from app.platform.database import Database
        from app.platform.secrets import Secrets
        from app.platform.settings import Settings

        settings = Settings(data_dir=self.root / "data")
        database = Database.from_settings(settings)
        try:
            with database.write() as session:
                accounts.create_user(session, name=user_name)
                keys = Secrets.load(settings)
                return accounts.create_key(session, user_name=user_name, key_name="bench", keys=keys).key
        finally:
            database.close()

    def client(self, key: str | None = None) -> httpx.Client:
        headers = {"Authorization": f"Bearer {key or self.key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=600)


def clean_environment(**settings: str) -> dict[str, str]:
    """That of this process with these settings of Regen's and no others."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("REGEN_")}
    return others | {f"REGEN_{name.upper()}": value for name, value in settings.items()}
