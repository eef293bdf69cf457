"""What the API processes of one server tell each other of limits that are the whole server's."""

import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from app.platform.settings import Settings

# A process holds the lock for the time of two small files. One that is stopped meanwhile delays the others this long.
LOCK_SECONDS = 0.1
POLL_SECONDS = 0.002

State = Mapping[str, Any]


class Neighbours:
    """The states of one topic, a file for each process; no files where there is one process.

    Use it within `exclusively` alone. The supervisor removes the files of a process that has died: `forget`.
    """

    def __init__(self, topic: str, directory: Path | None = None) -> None:
        """`directory` belongs to the processes of one start of the server; None for a process that is alone."""
        self._topic = topic
        self._directory = directory
        self._name = f"{topic}-{os.getpid()}-{secrets.token_hex(4)}.json"
        if directory is not None:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    @classmethod
    def of(cls, settings: Settings, topic: str) -> "Neighbours":
        return cls(topic, None if settings.api_processes == 1 else directory_of(settings))

    @contextmanager
    def exclusively(self) -> Iterator[Sequence[State]]:
        """The states of the others, which change nothing meanwhile."""
        if self._directory is None:
            yield ()
            return
        with (self._directory / f"{self._topic}.lock").open("a") as lock:
            _lock(lock.fileno())
            yield [
                state
                for path in self._directory.glob(f"{self._topic}-*.json")
                if path.name != self._name and (state := _read(path)) is not None
            ]

    def tell(self, state: State) -> None:
        """Replace this process's own state."""
        if self._directory is not None:
            (self._directory / self._name).write_text(json.dumps(state))


def directory_of(settings: Settings) -> Path:
    return settings.run_dir / "limits"


def forget(settings: Settings, pid: int) -> None:
    """Remove the states of the process, which has ended."""
    for path in directory_of(settings).glob(f"*-{pid}-*.json"):
        path.unlink(missing_ok=True)


def _read(path: Path) -> State | None:
    # One that died while writing has left no whole file.
    with suppress(OSError, ValueError):
        state: State = json.loads(path.read_text())
        return state
    return None


def _lock(descriptor: int) -> None:
    """Locks the file, which closing it unlocks, or goes on without."""
    over_at = time.monotonic() + LOCK_SECONDS
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        if time.monotonic() > over_at:
            return
        time.sleep(POLL_SECONDS)
