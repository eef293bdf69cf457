"""File operations that survive a crash: what is done on return is done after a power cut too."""

import os
import shutil
from pathlib import Path

COPY_BYTES = 1024**2


def sync_file(path: Path) -> None:
    """Wait until the file's bytes are on the disk."""
    _sync(path, os.O_RDONLY)


def sync_directory(path: Path) -> None:
    """Wait until the directory's names are on the disk. Does nothing where directories cannot be opened."""
    if hasattr(os, "O_DIRECTORY"):
        _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def make_directories(path: Path) -> None:
    """`path` and every parent that is missing, each name of them on the disk."""
    if path.is_dir():
        return
    make_directories(path.parent)
    try:
        path.mkdir()
    except FileExistsError:
        if not path.is_dir():
            raise
        return
    sync_directory(path.parent)


def copy_file(source: Path, destination: Path) -> None:
    """A copy of the bytes alone, on the disk on return. `destination` must not exist."""
    with source.open("rb") as reader, destination.open("xb") as writer:
        shutil.copyfileobj(reader, writer, COPY_BYTES)
        writer.flush()
        os.fsync(writer.fileno())


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
