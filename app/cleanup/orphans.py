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
from sqlalchemy.orm import Session

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
_RENDER_KEY = re.compile(
    rf"{RENDERS_PREFIX}([0-9A-Za-z]{{{ID_LENGTH}}})/(?:segments/|output-|thumbnail-|sound-).+"
)
_PREVIEW_KEY = re.compile(rf"{PREVIEWS_PREFIX}([0-9A-Za-z]{{{ID_LENGTH}}})/(?:before|after)-.+")

T = TypeVar("T")
# Whether the object with that key, of the row with that id, is named by it.
HasRow = Callable[[str, str], bool]
LookUp = Callable[[Session, set[str]], HasRow]

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
    kinds: list[tuple[str, re.Pattern[str], LookUp]] = [
        (FILES_PREFIX, _FILE_KEY, _known_files),
        (RENDERS_PREFIX, _RENDER_KEY, _known_renders),
        (PREVIEWS_PREFIX, _PREVIEW_KEY, _known_previews),
    ]
    for prefix, pattern, look_up in kinds:
        for batch in _batches(storage.list(prefix), BATCH):
            if stopped():
                return found
            old = [stored for stored in batch if stored.modified_at <= newest]
            _check(database, old, pattern, look_up, found)
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


def _check(
    database: Database, batch: list[ListedObject], pattern: re.Pattern[str], look_up: LookUp, found: Orphans
) -> None:
    matches = {stored.key: pattern.fullmatch(stored.key) for stored in batch}
    # The id in each of the server's own keys.
    ids = {key: match[1] for key, match in matches.items() if match}
    with database.read() as session:
        has_row = look_up(session, set(ids.values()))
    for key, row_id in ids.items():
        if has_row(key, row_id):
            found.known += 1
        else:
            found.keys.append(key)


def _known_files(session: Session, ids: set[str]) -> HasRow:
    # The object of an upload in parts has no file yet: it is being probed, or will be removed with its upload.
    known = cleanup_queries.known_files(session, ids) | upload_queries.files_to_be(session, ids)
    return lambda _key, file_id: file_id in known


def _known_renders(session: Session, ids: set[str]) -> HasRow:
    known = cleanup_queries.known_renders(session, ids)

    def has_row(key: str, render_id: str) -> bool:
        render = known.get(render_id)
        return render is not None and (not render.is_settled or key in render.keys)

    return has_row


def _known_previews(session: Session, ids: set[str]) -> HasRow:
    known = preview_queries.known_previews(session, ids)

    def has_row(key: str, preview_id: str) -> bool:
        own = known.get(preview_id, frozenset())
        return own is None or key in own

    return has_row


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
