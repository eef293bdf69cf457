"""Orphans: objects in storage without a row.

A process that is killed between storing a file and writing its row leaves one, and so does a worker that stores its
result after its render was cleaned or deleted. Finding them lists the whole storage, so it runs rarely.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TypeVar

import structlog

from app.cleanup import queries as cleanup_queries
from app.platform.database import Database
from app.platform.secrets import ID_LENGTH
from app.platform.storage.contract import ListedObject, Storage
from app.platform.storage.keys import FILES_PREFIX, PREVIEWS_PREFIX, RENDERS_PREFIX
from app.previews import queries as preview_queries
from app.uploads import queries as upload_queries

# A younger object may still get its row.
LEAST_AGE = timedelta(days=1)
BATCH = 500
# With more orphans than this, and more than known objects, rows are missing rather than objects superfluous.
FEW = 20

# The server's own keys; other objects in the storage are ignored.
_FILE_KEY = re.compile(rf"{FILES_PREFIX}([0-9A-Za-z]{{{ID_LENGTH}}})/input")
_RENDER_KEY = re.compile(rf"{RENDERS_PREFIX}([0-9A-Za-z]{{{ID_LENGTH}}})/(?:segments/|output-|thumbnail-).+")
_PREVIEW_KEY = re.compile(rf"{PREVIEWS_PREFIX}([0-9A-Za-z]{{{ID_LENGTH}}})/(?:before|after)-.+")

T = TypeVar("T")

log = structlog.get_logger(__name__)


@dataclass(kw_only=True)
class Orphans:
    """The result of a search. `known` counts the objects with a row."""

    keys: list[str] = field(default_factory=list)
    known: int = 0

    @property
    def are_suspect(self) -> bool:
        """Whether there are so many that the database is probably the wrong one, or an old copy."""
        return len(self.keys) > max(FEW, self.known)


def find_orphans(
    database: Database,
    storage: Storage,
    *,
    least_age: timedelta = LEAST_AGE,
    stopped: Callable[[], bool] = lambda: False,
) -> Orphans:
    """Check every object of this server that is older than `least_age`. Raises StorageError and Unavailable."""
    found = Orphans()
    newest = datetime.now(UTC) - least_age
    checks = {FILES_PREFIX: _check_files, RENDERS_PREFIX: _check_renders, PREVIEWS_PREFIX: _check_previews}
    for prefix, check in checks.items():
        for batch in _batches(storage.list(prefix), BATCH):
            if stopped():
                return found
            check(database, [stored for stored in batch if stored.modified_at <= newest], found)
    return found


def remove_orphans(
    storage: Storage, orphans: Orphans, *, anyway: bool = False, stopped: Callable[[], bool] = lambda: False
) -> int:
    """Remove the orphans and return their number; suspect ones only with `anyway`."""
    if orphans.are_suspect and not anyway:
        log.error("orphans_suspect", orphans=len(orphans.keys), known=orphans.known)
        return 0
    removed = 0
    for key in orphans.keys:
        if stopped():
            break
        storage.delete(key)
        removed += 1
    return removed


def _check_files(database: Database, batch: list[ListedObject], found: Orphans) -> None:
    ids = _ids(batch, _FILE_KEY)
    with database.read() as session:
        known = cleanup_queries.known_files(session, set(ids.values()))
        # The object of an upload in parts has no file yet: it is being probed, or will be removed with its upload.
        known |= upload_queries.files_to_be(session, set(ids.values()))
    for key, file_id in ids.items():
        if file_id in known:
            found.known += 1
        else:
            found.keys.append(key)


def _check_renders(database: Database, batch: list[ListedObject], found: Orphans) -> None:
    ids = _ids(batch, _RENDER_KEY)
    with database.read() as session:
        known = cleanup_queries.known_renders(session, set(ids.values()))
    for key, render_id in ids.items():
        render = known.get(render_id)
        if render is not None and (not render.is_settled or key in render.keys):
            found.known += 1
        else:
            found.keys.append(key)


def _check_previews(database: Database, batch: list[ListedObject], found: Orphans) -> None:
    ids = _ids(batch, _PREVIEW_KEY)
    with database.read() as session:
        known = preview_queries.known_previews(session, set(ids.values()))
    for key, preview_id in ids.items():
        own = known.get(preview_id, frozenset())
        if own is None or key in own:
            found.known += 1
        else:
            found.keys.append(key)


def _ids(batch: list[ListedObject], pattern: re.Pattern[str]) -> dict[str, str]:
    """The id in each of the server's own keys."""
    matches = {stored.key: pattern.fullmatch(stored.key) for stored in batch}
    return {key: match[1] for key, match in matches.items() if match}


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
