"""A worker's directory on this machine: temporary directories of jobs, and a cache of fetched inputs."""

import contextlib
import fcntl
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from app.work.outage_retry import is_disk_full

LOCK_NAME = "in-use"


class Workspace:
    """Belongs to one process and is locked while it lives. Directories of workers that died are removed first."""

    def __init__(self, parent: Path, *, cache_bytes: int) -> None:
        parent.mkdir(parents=True, exist_ok=True)
        self._cache_bytes = cache_bytes
        with (parent / "lock").open("w") as creation_lock:
            # Held until the new directory is locked: until then another worker would take it for abandoned.
            fcntl.flock(creation_lock, fcntl.LOCK_EX)
            _remove_abandoned(parent)
            self.path = Path(tempfile.mkdtemp(prefix="worker-", dir=parent))
            self._lock = (self.path / LOCK_NAME).open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._inputs = self.path / "inputs"
        self._inputs.mkdir()
        self._fetched: dict[str, Path] = {}

    @property
    def capacity_bytes(self) -> int:
        """The size of the disk, full or not."""
        return shutil.disk_usage(self.path).total

    @property
    def free_bytes(self) -> int:
        return shutil.disk_usage(self.path).free

    @contextmanager
    def job_directory(self) -> Iterator[Path]:
        """A new temporary directory, removed afterwards.

        When the disk is full, all inputs but the last one are removed, to make room for the next job.
        """
        # Errors ignored: a cancelled transfer may still write a file there.
        with tempfile.TemporaryDirectory(
            prefix="job-", dir=self.path, ignore_cleanup_errors=True
        ) as directory:
            try:
                yield Path(directory)
            except Exception as error:
                if is_disk_full(error):
                    self.drop_inputs()
                raise

    def fetch_input(self, *, file_id: str, storage_key: str, fetch: Callable[[str, Path], None]) -> Path:
        """Returns the input's path, after fetching it by `fetch` unless it is cached. Callers must not write to it."""
        path = self._fetched.pop(file_id, None)
        if path is None:
            path = self._inputs / file_id
            # A cancelled fetch of the same input may still go on.
            part = self._inputs / f"{file_id}-{secrets.token_hex(4)}"
            fetch(storage_key, part)
            part.replace(path)
        self._fetched[file_id] = path  # the most recently used comes last
        self._make_room(keep=file_id)
        return path

    def drop_inputs(self) -> None:
        """Removes all inputs but the most recently used one, which may be in use."""
        for file_id in list(self._fetched)[:-1]:
            self._drop(file_id)

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()

    def _make_room(self, *, keep: str) -> None:
        held_bytes = sum(path.stat().st_size for path in self._fetched.values())
        for file_id in [name for name in self._fetched if name != keep]:
            if held_bytes <= self._cache_bytes:
                return
            held_bytes -= self._drop(file_id)

    def _drop(self, file_id: str) -> int:
        """Returns the size of the removed file in bytes."""
        path = self._fetched.pop(file_id)
        size_bytes = path.stat().st_size
        path.unlink()
        return size_bytes


def _remove_abandoned(parent: Path) -> None:
    for directory in parent.glob("worker-*"):
        with contextlib.suppress(OSError), (directory / LOCK_NAME).open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(directory, ignore_errors=True)
