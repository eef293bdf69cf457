"""`regen serve --no-worker` as on a laptop: SQLite, local storage, the embedded broker, in a directory of its own."""

import json
import os
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.servers.process import ServerProcess

START_SECONDS = 60.0


class Laptop:
    """Started by the constructor; ended, and its directory removed, on exit. `settings` are by Settings' names."""

    def __init__(self, **settings: str) -> None:
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
                *(sys.executable, "-m", "app.cli", "serve", "--no-worker", "--port", "0"),
                *("--data-dir", self.root / "data", "--ready-file", ready_file),
            ],
            log=self.root / "api.log",
            environment=clean_environment(**settings),
        )
        self._stack.callback(self.api.stop)
        self.api.wait_until(ready_file.exists, seconds=START_SECONDS, what="the API is ready")
        ready = json.loads(ready_file.read_text())
        self.url, self.key = ready["url"], ready["key"]


def clean_environment(**settings: str) -> dict[str, str]:
    """That of this process with these settings of Regen's and no others."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("REGEN_")}
    return others | {f"REGEN_{name.upper()}": value for name, value in settings.items()}
