"""Transfers between the storage and a worker's disk, which survive outages."""

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from app.platform.errors import AccessRefused, Canceled, RegenError, StorageError, TransientError, Unavailable
from app.platform.progress import current_progress
from app.platform.storage.contract import Storage
from app.work.loop import Cancelled
from app.work.outage_retry import OutageRetry, is_disk_full

# A stopping worker spends no more on removing files of a failed attempt; the clean-up removes them later.
REMOVE_SECONDS = 2.0

# A segment is small: most of the time to fetch one is spent waiting for the storage's answer.
FETCHES_AT_ONCE = 16

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class StorageTransfers:
    """Fetches and stores files. Each call raises Canceled once `cancelled` returns True."""

    storage: Storage
    outage_retry: OutageRetry
    make_room: Callable[[], None] = lambda: None
    """Called when the disk is full."""

    def fetch(self, key: str, path: Path, *, cancelled: Cancelled, in_parts: bool = True) -> None:
        """See `Storage.fetch`. Raises TransientError if only this object is refused, which is not an outage, and
        StorageError."""

        def fetch() -> None:
            try:
                self.storage.fetch(key, path, in_parts=in_parts)
            except StorageError as error:
                if is_disk_full(error):
                    self.make_room()
                raise

        try:
            self.outage_retry.transfer(fetch, cancelled=cancelled, undo=lambda: path.unlink(missing_ok=True))
        except AccessRefused as error:
            raise self._refusal_of_one(key, error) from error

    def fetch_all(self, files: Mapping[str, Path], *, cancelled: Cancelled) -> None:
        """Fetches each key to its path, several at a time. Raises as `fetch` does; the first error stops the others."""
        failed = threading.Event()
        in_parts = len(files) < FETCHES_AT_ONCE

        def stopped() -> bool:
            return failed.is_set() or cancelled()

        def fetch(key: str, path: Path) -> None:
            if stopped():
                raise Canceled()
            try:
                self.fetch(key, path, cancelled=stopped, in_parts=in_parts)
            except Exception:
                failed.set()
                raise

        with ThreadPoolExecutor(FETCHES_AT_ONCE, thread_name_prefix="fetch") as pool:
            fetches = [
                pool.submit(copy_context().run, partial(fetch, key, path)) for key, path in files.items()
            ]
        errors = [error for done in fetches if (error := done.exception()) is not None]
        if errors:
            # The others were only stopped.
            raise next((error for error in errors if not isinstance(error, Canceled)), errors[0])

    def put(self, key: str, path: Path, *, content_type: str, cancelled: Cancelled) -> None:
        """Raises as `fetch` does."""
        try:
            self.outage_retry.transfer(
                lambda: self.storage.put_file(key, path, content_type=content_type),
                cancelled=cancelled,
                undo=lambda: self.storage.delete(key),
            )
        except AccessRefused as error:
            raise self._refusal_of_one(key, error) from error

    @contextlib.contextmanager
    def removed_unless_reported(self, *keys: str) -> Iterator[None]:
        """Removes the stored objects if the block raises and the row cannot name them."""
        try:
            yield
        except Unavailable:
            # The commit may have succeeded.
            raise
        except Exception:
            self.remove(keys)
            raise

    def remove(self, keys: Iterable[str]) -> None:
        """Removes objects that no row names. Leaves those that cannot be removed soon to the clean-up."""
        keys = list(keys)

        def remove() -> None:
            for key in keys:
                self.storage.delete(key)
                current_progress().beat()

        reason = "no answer in time"
        try:
            if self.outage_retry.call_with_timeout(remove, seconds=REMOVE_SECONDS):
                return
        except RegenError as error:
            reason = error.message
        log.warning("late_files_not_removed", keys=keys, error=reason)

    def _refusal_of_one(self, key: str, error: AccessRefused) -> TransientError:
        """Raises StorageError if the storage refuses more than this object, or does not answer.

        The refusal of a single object is not an outage: waiting for its end would never stop.
        """
        self.storage.check(beside=key)
        return TransientError("The storage refuses this one file.", detail=f"{key}: {error.detail}")
