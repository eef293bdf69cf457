"""The file by which a worker shows other processes of its machine that it lives: touched every few seconds."""

import contextlib
import fcntl
import time
from collections.abc import Sequence
from pathlib import Path

# Below the data directory: where workers have theirs.
WORK_DIRECTORY = "work"
# A worker holds the lock of its directory while it lives.
DIRECTORY_PREFIX = "worker-"
LOCK_NAME = "in-use"
FILE_NAME = "alive"
TOUCH_SECONDS = 5.0
# A worker that has not touched it for so long is considered to hang.
FRESH_SECONDS = 60.0


class Liveness:
    """For one thread. `directory` is the worker's own, whose lock it holds while it lives."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / FILE_NAME
        self._touch_at = 0.0

    def touch(self) -> None:
        """Call it often; never raises."""
        if time.monotonic() >= self._touch_at:
            self._touch_at = time.monotonic() + TOUCH_SECONDS
            with contextlib.suppress(OSError):
                self._file.touch()


def silent_seconds(work_directory: Path) -> Sequence[float]:
    """For how long each worker that runs here has not touched its file."""
    ages = []
    for directory in work_directory.glob(f"{DIRECTORY_PREFIX}*"):
        with contextlib.suppress(OSError), (directory / LOCK_NAME).open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                ages.append(time.time() - (directory / FILE_NAME).stat().st_mtime)
    return ages
