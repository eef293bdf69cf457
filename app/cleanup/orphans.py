"""Orphans: objects in storage that no row knows.

A process that is killed between storing a file and writing its row leaves one, and so does a worker that stores its
result after its render was cleaned or deleted. Finding them means to list everything, so it is done rarely.
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

# Younger ones may get their row yet.
LEAST_AGE = timedelta(days=1)
BATCH = 500
# More than so many orphans, and more of them than of known objects: then it is the rows that are missing.
FEW = 20

# What this server stores, and nothing else that somebody may keep there.
_FILE_KEY = re.compile(rf"{FILES_PREFIX}([0-9A-Za-z]{{{ID_LENGTH}}})/input")
_RENDER_KEY = re.compile(rf"{RENDERS_PREFIX}([0-9A-Za-z]{{{ID_LENGTH}}})/(?:segments/|output-|thumbnail-).+")
_PREVIEW_KEY = re.compile(rf"{PREVIEWS_PREFIX}([0-9A-Za-z]{{{ID_LENGTH}}})/(?:before|after)-.+")

T = TypeVar("T")

log = structlog.get_logger(__name__)


@dataclass(kw_only=True)
class Orphans:
    """What a search found. `known` counts the objects that have a row."""

    keys: list[str] = field(default_factory=list)
    known: int = 0

    @property
    def are_suspect(self) -> bool:
        """So many that the database is rather the wrong one, or an old copy."""
        return len(self.keys) > max(FEW, self.known)


def find_orphans(
    database: Database,
    storage: Storage,
    *,
    least_age: timedelta = LEAST_AGE,
    stopped: Callable[[], bool] = lambda: False,
) -> Orphans:
    """Looks at every object of this server that is older than `least_age`. Raises StorageError and Unavailable."""
    found = Orphans()
    newest = datetime.now(UTC) - least_age
    judges = {FILES_PREFIX: _judge_files, RENDERS_PREFIX: _judge_renders, PREVIEWS_PREFIX: _judge_previews}
    for prefix, judge in judges.items():
        for batch in _batches(storage.list(prefix), BATCH):
            if stopped():
                return found
            judge(database, [stored for stored in batch if stored.modified_at <= newest], found)
    return found


def remove_orphans(
    storage: Storage, orphans: Orphans, *, anyway: bool = False, stopped: Callable[[], bool] = lambda: False
) -> int:
    """Remove what `find_orphans` found. Returns how many; none when they are suspect, unless `anyway`."""
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


def _judge_files(database: Database, batch: list[ListedObject], found: Orphans) -> None:
    ids = _ids(batch, _FILE_KEY)
    with database.read() as session:
        known = cleanup_queries.known_files(session, set(ids.values()))
        # What was put together is not looked at yet, or is to be cleared away with its upload.
        known |= upload_queries.files_to_be(session, set(ids.values()))
    for key, file_id in ids.items():
        if file_id in known:
            found.known += 1
        else:
            found.keys.append(key)


def _judge_renders(database: Database, batch: list[ListedObject], found: Orphans) -> None:
    ids = _ids(batch, _RENDER_KEY)
    with database.read() as session:
        known = cleanup_queries.known_renders(session, set(ids.values()))
    for key, render_id in ids.items():
        render = known.get(render_id)
        if render is not None and (not render.is_settled or key in render.keys):
            found.known += 1
        else:
            found.keys.append(key)


def _judge_previews(database: Database, batch: list[ListedObject], found: Orphans) -> None:
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
    """The id in each key that is one of ours."""
    matches = {stored.key: pattern.fullmatch(stored.key) for stored in batch}
    return {key: match[1] for key, match in matches.items() if match}


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
