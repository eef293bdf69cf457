"""What the file system raises, told as our own errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.platform.errors import KeyNotFound, StorageError


@contextmanager
def local_errors(sentence: str, *, source: Path | None = None) -> Iterator[None]:
    """Raise StorageError with that sentence; KeyNotFound when `source` is no file (any more)."""
    try:
        yield
    except OSError as error:
        # What was there a moment ago may have been deleted by somebody else since.
        if source is not None and not source.is_file():
            raise not_found(source) from error
        raise StorageError(sentence, detail=str(error)) from error


def not_found(path: Path) -> KeyNotFound:
    return KeyNotFound("The file is not in the storage.", detail=f"no object at {path}")
