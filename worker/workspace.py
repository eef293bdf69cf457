"""A worker's own directory on this machine: private directories of jobs, and the inputs it has fetched."""

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
    """Created for one process and locked while it lives; the leftovers of workers that died are removed first."""

    def __init__(self, parent: Path, *, cache_bytes: int) -> None:
        parent.mkdir(parents=True, exist_ok=True)
        self._cache_bytes = cache_bytes
        with (parent / "lock").open("w") as everyone:
            # Held so that no other worker takes a directory for abandoned before its own lock is on it.
            fcntl.flock(everyone, fcntl.LOCK_EX)
            _remove_abandoned(parent)
            self.path = Path(tempfile.mkdtemp(prefix="worker-", dir=parent))
            self._lock = (self.path / LOCK_NAME).open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._inputs = self.path / "inputs"
        self._inputs.mkdir()
        self._fetched: dict[str, Path] = {}

    @contextmanager
    def job_directory(self) -> Iterator[Path]:
        """A fresh private directory, removed afterwards with all that is in it.

        When the disk is full the next job finds more room: all inputs but this one's are dropped.
        """
        # Errors ignored: a transfer that was called off may be about to write a file there.
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
        """The input on this machine's disk, brought there by `fetch` once and kept for further segments while there is
        room. It must be read only.
        """
        path = self._fetched.pop(file_id, None)
        if path is None:
            path = self._inputs / file_id
            # A fetch of the same input that was called off may still go on.
            part = self._inputs / f"{file_id}-{secrets.token_hex(4)}"
            fetch(storage_key, part)
            part.replace(path)
        self._fetched[file_id] = path  # the newest comes last
        self._make_room(keep=file_id)
        return path

    def drop_inputs(self) -> None:
        """Make room on the disk. The input that was asked for last stays: it may be in use."""
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
        """Returns how many bytes it took up."""
        path = self._fetched.pop(file_id)
        size_bytes = path.stat().st_size
        path.unlink()
        return size_bytes


def _remove_abandoned(parent: Path) -> None:
    for directory in parent.glob("worker-*"):
        with contextlib.suppress(OSError), (directory / LOCK_NAME).open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(directory, ignore_errors=True)
