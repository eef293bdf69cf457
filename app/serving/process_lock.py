"""The lock that one server process holds on its data directory."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.platform.errors import ConfigurationError

LOCK_NAME = "serve.lock"


@contextmanager
def locked_data_directory(root: Path) -> Iterator[None]:
    """Create the data directory and lock it for this process.

    Raises ConfigurationError when another process holds the lock, or the directory cannot be used.
    """
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (root / LOCK_NAME).open("a+")
    except OSError as error:
        raise ConfigurationError(f"The data directory {root} cannot be used: {error.strerror}.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise ConfigurationError(
                f"Another `regen serve` (process {lock.read().strip() or 'unknown'}) already uses {root}. Stop it, or "
                "choose another directory with --data-dir."
            ) from error
        except OSError as error:
            raise ConfigurationError(
                f"The data directory {root} is on a file system without locks: {error.strerror}."
            ) from error
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield
