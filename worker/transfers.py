"""Transfers between the storage and a worker's disk, which survive outages."""

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import structlog

from app.platform.byte_sizes import MIB
from app.platform.errors import AccessRefused, Canceled, RegenError, StorageError, TransientError, Unavailable
from app.platform.progress import current_progress
from app.platform.storage.contract import Storage
from app.work.loop import Cancelled
from app.work.outage_retry import OutageRetry, is_disk_full
from worker.byte_ranges import ByteRange, pieces
from worker.metrics import INPUT_BYTES

# A stopping worker spends no more on removing files of a failed attempt; the clean-up removes them later.
REMOVE_SECONDS = 2.0

# A segment is small: most of the time to fetch one is spent waiting for the storage's answer.
FETCHES_AT_ONCE = 16
# Of many files so many are one transfer: a thread for each costs as much as a fifth of fetching it.
LONGEST_RUN = 16
# The most that one request for a range asks for.
PIECE_BYTES = 8 * MIB

Item = TypeVar("Item")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class StorageTransfers:
    """Fetches and stores files. Each call raises Canceled once `cancelled` returns True."""

    storage: Storage
    outage_retry: OutageRetry
    make_room: Callable[[], None] = lambda: None
    """Called when the disk is full."""

    def fetch_input(self, key: str, path: Path, *, cancelled: Cancelled) -> None:
        """As `fetch`, counted by the worker's metrics unless the storage only links it."""
        self.fetch(key, path, cancelled=cancelled)
        if (found := path.stat()).st_nlink == 1:
            INPUT_BYTES.labels("whole").inc(found.st_size)

    def fetch_input_ranges(
        self, key: str, path: Path, ranges: Sequence[ByteRange], *, cancelled: Cancelled
    ) -> None:
        """Write these ranges of the object into the existing file, several at a time. Raises as `fetch` does."""

        def fetch(piece: ByteRange, cancelled: Cancelled) -> None:
            with self._explaining_refusal(key):
                self.outage_retry.transfer(
                    lambda: self._copy_range(key, path, piece, cancelled),
                    cancelled=cancelled,
                    undo=lambda: None,
                )

        self._side_by_side(fetch, list(pieces(ranges, most_bytes=PIECE_BYTES)), cancelled=cancelled)

    def _copy_range(self, key: str, path: Path, piece: ByteRange, cancelled: Cancelled) -> None:
        start, stop = piece
        try:
            with path.open("r+b", buffering=0) as file:
                file.seek(start)
                for chunk in self.storage.read(key, offset=start, length=stop - start):
                    if cancelled():
                        raise Canceled()
                    file.write(chunk)
                    INPUT_BYTES.labels("ranges").inc(len(chunk))
                    current_progress().beat()
                if (at := file.tell()) != stop:
                    raise StorageError(
                        "The stored file could not be fetched.", detail=f"it ends at {at:,}, not at {stop:,}"
                    )
        except (OSError, StorageError) as error:
            if is_disk_full(error):
                self.make_room()
            raise

    def fetch(self, key: str, path: Path, *, cancelled: Cancelled) -> None:
        """See `Storage.fetch`. Raises TransientError if only this object is refused, which is not an outage, and
        StorageError."""
        self._fetch_run([(key, path)], cancelled=cancelled, in_parts=True)

    def fetch_all(self, files: Mapping[str, Path], *, cancelled: Cancelled) -> None:
        """Fetches each key to its path, several at a time. Raises as `fetch` does; the first error stops the others."""
        in_parts = len(files) < FETCHES_AT_ONCE
        run_length = max(1, min(LONGEST_RUN, len(files) // (4 * FETCHES_AT_ONCE)))

        def fetch(some: Sequence[tuple[str, Path]], cancelled: Cancelled) -> None:
            self._fetch_run(some, cancelled=cancelled, in_parts=in_parts)

        pairs = list(files.items())
        runs = [pairs[start : start + run_length] for start in range(0, len(pairs), run_length)]
        self._side_by_side(fetch, runs, cancelled=cancelled)

    @staticmethod
    def _side_by_side(
        fetch: Callable[[Item, Cancelled], None], items: Sequence[Item], *, cancelled: Cancelled
    ) -> None:
        """Fetches the items, several at a time; the first error stops the others and is raised."""
        failed = threading.Event()

        def try_to_fetch(item: Item) -> None:
            try:
                fetch(item, lambda: failed.is_set() or cancelled())
            except Exception:
                failed.set()
                raise

        with ThreadPoolExecutor(FETCHES_AT_ONCE, thread_name_prefix="fetch") as pool:
            fetches = [pool.submit(copy_context().run, try_to_fetch, item) for item in items]
        errors = [error for done in fetches if (error := done.exception()) is not None]
        if errors:
            # The others were only stopped.
            raise next((error for error in errors if not isinstance(error, Canceled)), errors[0])

    def _fetch_run(self, files: Sequence[tuple[str, Path]], *, cancelled: Cancelled, in_parts: bool) -> None:
        """Fetches one after the other, after an outage those that are missing. Raises as `fetch` does."""
        fetched: set[str] = set()
        refused: list[str] = []
        given_up = threading.Event()

        def fetch() -> None:
            for key, path in files:
                if key in fetched:
                    continue
                if cancelled():
                    raise Canceled()
                try:
                    self.storage.fetch(key, path, in_parts=in_parts)
                except AccessRefused:
                    refused.append(key)
                    raise
                except StorageError as error:
                    if is_disk_full(error):
                        self.make_room()
                    raise
                if given_up.is_set() and key not in fetched:  # it hung: its caller is gone
                    path.unlink(missing_ok=True)
                    raise Canceled()
                fetched.add(key)

        try:
            self.outage_retry.transfer(fetch, cancelled=cancelled, undo=lambda: None)
        except AccessRefused as error:
            raise self._refusal_of_one(refused[-1], error) from error
        finally:
            given_up.set()

    def put(self, key: str, path: Path, *, content_type: str, cancelled: Cancelled) -> None:
        """Raises as `fetch` does."""
        with self._explaining_refusal(key):
            self.outage_retry.transfer(
                lambda: self.storage.put_file(key, path, content_type=content_type),
                cancelled=cancelled,
                undo=lambda: self.storage.delete(key),
            )

    @contextlib.contextmanager
    def _explaining_refusal(self, key: str) -> Iterator[None]:
        try:
            yield
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
