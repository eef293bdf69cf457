"""The fetched inputs of one machine's workers: each byte is fetched once for all.

A file here is a hard link to the file in the directory of each worker that reads it. So removing it here does
not affect a reader, and a process that dies leaves only files that others can use.

Beside a file that is not whole there is a record of the ranges that it has; elsewhere it has holes. The record changes
after the file, and is there before it and until after it: without a record a file is whole.
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from app.platform.errors import Canceled
from app.platform.progress import current_progress
from worker.byte_ranges import ByteRange, merged, without
from worker.video.input_ranges import InputRanges

POLL_SECONDS = 0.1
LOCK_SUFFIX, RECORD_SUFFIX = ".lock", ".ranges"
# Of the bytes that `stat` counts in blocks.
BLOCK_BYTES = 512

# Writes ranges of an input into the file, which is there and of the right length.
FetchRanges: TypeAlias = Callable[[Path, Sequence[ByteRange]], None]


class SharedInputs:
    """A directory that many processes use. Holds about `cache_bytes`, in addition to files being read."""

    def __init__(self, directory: Path, *, cache_bytes: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._cache_bytes = cache_bytes

    def fetch(
        self,
        name: str,
        path: Path,
        *,
        fetch: Callable[[Path], None],
        cancelled: Callable[[], bool],
        fetch_ranges: FetchRanges | None = None,
    ) -> None:
        """Link the file of that name to the new file `path`, or `fetch` it there and share it. Of a file that is not
        whole, `fetch_ranges` fetches the rest, if it is given.

        Waits while another process fetches it. Raises Canceled once `cancelled` returns True meanwhile, and what
        `fetch` and `fetch_ranges` raise.
        """
        shared = self._directory / name
        with self._locked(name, cancelled):
            if (present := self._present(name)) is not None:
                if fetch_ranges is None:
                    shared.unlink()
                else:
                    fetch_ranges(shared, without([(0, shared.stat().st_size)], present))
            self._record_path(name).unlink(missing_ok=True)
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

    def fetch_part(
        self,
        name: str,
        path: Path,
        *,
        wanted: InputRanges,
        fetch_ranges: FetchRanges,
        cancelled: Callable[[], bool],
    ) -> None:
        """Link the file of that name to the new file `path`, with at least the wanted ranges in it. Those that it lacks
        are fetched. Raises as `fetch` does, and OSError where there are no hard links.
        """
        shared = self._directory / name
        with self._locked(name, cancelled):
            if not shared.exists():
                self._write_record(name, ())
                with shared.open("xb") as file:
                    file.truncate(wanted.size_bytes)
            if (present := self._present(name)) is not None:
                fetch_ranges(shared, without(wanted.ranges, present))
                self._write_record(name, merged([*present, *wanted.ranges]))
            os.link(shared, path)
            os.utime(path)  # used last

    def forget_part(self, name: str, *, cancelled: Callable[[], bool]) -> None:
        """Remove the file of that name, unless it is whole. Raises Canceled as `fetch` does."""
        with self._locked(name, cancelled):
            if self._present(name) is not None:
                (self._directory / name).unlink()
                self._record_path(name).unlink()

    def make_room(self, *, keep_bytes: int | None = None) -> None:
        """Remove files that no worker reads, the one used longest ago first, down to `cache_bytes` or `keep_bytes`."""
        most = self._cache_bytes if keep_bytes is None else keep_bytes
        found = []
        for path in self._directory.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another process frees space too
                if path.suffix not in (LOCK_SUFFIX, RECORD_SUFFIX):
                    found.append((path, path.stat()))
        held_bytes = sum(_allocated_bytes(stat) for _, stat in found)
        for path, stat in sorted(found, key=lambda file: file[1].st_mtime):
            if held_bytes > most and stat.st_nlink == 1 and self._remove(path):
                held_bytes -= _allocated_bytes(stat)

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
            self._record_path(path.name).unlink(missing_ok=True)
            self._lock_path(path.name).unlink(missing_ok=True)
        return True

    def _present(self, name: str) -> list[ByteRange] | None:
        """The ranges that the file of that name has; None if it is whole or does not exist."""
        if not (self._directory / name).exists():
            return None
        try:
            return [(start, stop) for start, stop in json.loads(self._record_path(name).read_text())]
        except FileNotFoundError:
            return None

    def _write_record(self, name: str, present: Sequence[ByteRange]) -> None:
        record = self._record_path(name)
        written = record.with_name(f".{record.name}")
        written.write_text(json.dumps(present))
        written.replace(record)

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

    def _record_path(self, name: str) -> Path:
        return self._directory / f"{name}{RECORD_SUFFIX}"


def _allocated_bytes(stat: os.stat_result) -> int:
    """What the file takes of the disk: holes take nothing."""
    return min(stat.st_size, stat.st_blocks * BLOCK_BYTES)
