"""The fetched inputs of one machine's workers: each is fetched once for all.

A file here is a hard link to the file in the directory of each worker that reads it. So removing it here does
not affect a reader, and a process that dies leaves only files that others can use.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from app.platform.errors import Canceled
from app.platform.progress import current_progress

POLL_SECONDS = 0.1
LOCK_SUFFIX = ".lock"


class SharedInputs:
    """A directory that many processes use. Holds about `cache_bytes`, in addition to files being read."""

    def __init__(self, directory: Path, *, cache_bytes: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._cache_bytes = cache_bytes

    def fetch(
        self, name: str, path: Path, *, fetch: Callable[[Path], None], cancelled: Callable[[], bool]
    ) -> None:
        """Link the file of that name to the new file `path`, or `fetch` it there and share it.

        Waits while another process fetches it. Raises Canceled once `cancelled` returns True meanwhile, and what
        `fetch` raises.
        """
        shared = self._directory / name
        with self._locked(name, cancelled):
            with contextlib.suppress(OSError):
                os.link(shared, path)
            if path.exists():
                os.utime(path)  # used last
                return
            fetch(path)
            # Files that the storage itself links take no further space.
            if path.stat().st_nlink == 1:
                with contextlib.suppress(OSError):  # without hard links each worker has its own copy
                    os.link(path, shared)

    def make_room(self, *, keep_bytes: int | None = None) -> None:
        """Remove files that no worker reads, the one used longest ago first, down to `cache_bytes` or `keep_bytes`."""
        most = self._cache_bytes if keep_bytes is None else keep_bytes
        found = []
        for path in self._directory.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another process frees space too
                if path.suffix != LOCK_SUFFIX:
                    found.append((path, path.stat()))
        held_bytes = sum(stat.st_size for _, stat in found)
        for path, stat in sorted(found, key=lambda file: file[1].st_mtime):
            if held_bytes > most and stat.st_nlink == 1 and self._remove(path):
                held_bytes -= stat.st_size

    def _remove(self, path: Path) -> bool:
        """Returns False if a process is just taking the file."""
        with self._lock_file(path.name) as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            if not self._is_current(lock, path.name):
                return False
            path.unlink(missing_ok=True)
            self._lock_path(path.name).unlink(missing_ok=True)
        return True

    @contextmanager
    def _locked(self, name: str, cancelled: Callable[[], bool]) -> Iterator[None]:
        while True:
            with self._lock_file(name) as lock:
                while True:
                    try:
                        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        break
                    except BlockingIOError:
                        # The process that holds it ends its transfer if it stalls.
                        current_progress().beat()
                        if cancelled():
                            raise Canceled() from None
                        time.sleep(POLL_SECONDS)
                if self._is_current(lock, name):
                    yield
                    return

    @contextmanager
    def _lock_file(self, name: str) -> Iterator[int]:
        descriptor = os.open(self._lock_path(name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _is_current(self, lock: int, name: str) -> bool:
        """False if the lock was removed with its file: another process may hold a new one."""
        try:
            return self._lock_path(name).stat().st_ino == os.fstat(lock).st_ino
        except FileNotFoundError:
            return False

    def _lock_path(self, name: str) -> Path:
        return self._directory / f"{name}{LOCK_SUFFIX}"
