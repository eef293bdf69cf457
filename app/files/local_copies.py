"""Copies of stored files on this machine's disk, kept for a moment: what is asked of a file is soon asked again."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from app.http.spool_space import SpoolSpace, new_spool_path
from app.platform.byte_sizes import GIB
from app.platform.errors import LimitExceeded
from app.platform.storage.contract import Storage

# How long a copy that nobody uses is kept, and how many.
KEPT_SECONDS = 60.0
MOST_UNUSED = 8
# Of a storage that copies: more would keep a user waiting, and fill the disk.
MOST_COPIED_BYTES = 4 * GIB
TOO_LARGE = "This file is too large to be looked through: the server would have to copy all of it first."


@dataclass(kw_only=True)
class LocalCopy:
    """`path` must only be read. `video_index` is the video's stream, once it is known."""

    path: Path
    video_index: int | None = None
    users: int = 0
    used_at: float = 0.0
    fetching: threading.Lock = field(default_factory=threading.Lock, repr=False)


class LocalCopies:
    """The copies of one process. For any thread."""

    def __init__(self, storage: Storage, space: SpoolSpace) -> None:
        self._storage = storage
        self._space = space
        self._copies: dict[str, LocalCopy] = {}
        self._lock = threading.Lock()

    @contextmanager
    def of(self, key: str, *, size_bytes: int) -> Iterator[LocalCopy]:
        """The stored object on this machine's disk, while the block lasts.

        Raises StorageError, Unavailable without room on the disk, and LimitExceeded.
        """
        if size_bytes > MOST_COPIED_BYTES and not self._storage.links_files:
            raise LimitExceeded(TOO_LARGE)
        with self._lock:
            fresh = LocalCopy(path=new_spool_path(self._space.directory))
            copy = self._copies.setdefault(key, fresh)
            copy.users += 1
        try:
            with copy.fetching:
                # The tidying of the directory may have removed it.
                if not copy.path.exists():
                    with self._space.reserved(0 if self._storage.links_files else size_bytes):
                        self._storage.fetch(key, copy.path)
            yield copy
        finally:
            with self._lock:
                copy.users -= 1
                copy.used_at = time.monotonic()

    def drop_unused(self, *, kept_seconds: float = KEPT_SECONDS, most: int = MOST_UNUSED) -> None:
        """Removes copies that nobody has used for so long, and the longest unused beyond so many."""
        with self._lock:
            unused = sorted(
                (key for key, copy in self._copies.items() if not copy.users),
                key=lambda key: self._copies[key].used_at,
            )
            ended_at = time.monotonic() - kept_seconds
            surplus = len(unused) - most
            dropped = [
                self._copies.pop(key)
                for place, key in enumerate(unused)
                if place < surplus or self._copies[key].used_at <= ended_at
            ]
        for copy in dropped:
            copy.path.unlink(missing_ok=True)
