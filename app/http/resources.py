"""Resources that the process opens once and every request uses."""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import structlog
from anyio import to_thread

from app.engines.service import KnownEngines
from app.estimates.forecasts import Forecast
from app.files.local_copies import LocalCopies
from app.http.neighbours import Neighbours
from app.http.rate_limit import RateLimiter
from app.http.shared_slots import SharedSlots
from app.http.spool_space import SPOOL_PREFIX, SpoolSpace
from app.http.superseded_requests import LatestAlone
from app.platform.broker import Broker, open_broker
from app.platform.database import Database
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.limits import MediaLimits
from app.platform.secrets import Secrets
from app.platform.settings import Settings
from app.platform.storage import open_storage
from app.platform.storage.contract import Storage
from app.work.worker_queries import SILENT_LEASES

STALE_SPOOL_SECONDS = 24 * 3600
TIDY_SECONDS = 3600.0
COPIES_SECONDS = 30.0
MOST_FETCHES = 24
MOST_FETCHES_PER_USER = 8
MOST_PLAYBACKS = 24
MOST_PLAYBACKS_PER_USER = 4
# Who looks through a video asks for one at a time, and gives up those that are no longer wanted.
STILLS_PER_USER = 2
MOST_STILLS_WAITING = 8
# Waiting requests of one user, for any of these.
MOST_WAITING = 100
# Requests that run in threads at the same time. They share one interpreter: more of one user's are hardly faster.
# With SQLite, which is no other machine to wait for, they are not faster at all.
MOST_TURNS = 32
MOST_TURNS_PER_USER = 2
SQLITE_TURNS_PER_USER = 1
MOST_WAITING_FOR_TURNS = 500

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Resources:
    """`probe_slots` bounds how many uploads are probed at the same time, each by its own process,
    `fetch_slots` how many videos are fetched for probing, each by its own thread, `playback_slots` how many pieces of
    videos are read for players, `still_slots` how many stills are made, each by its own process, `turns` how many other
    requests run in threads."""

    settings: Settings
    database: Database
    storage: Storage
    secrets: Secrets
    runner: FfmpegRunner
    limits: MediaLimits
    broker: Broker
    rate_limit: RateLimiter
    spool_space: SpoolSpace
    probe_slots: SharedSlots
    fetch_slots: SharedSlots
    playback_slots: SharedSlots
    still_slots: SharedSlots
    local_copies: LocalCopies
    turns: SharedSlots
    part_writers: LatestAlone
    forecast: Forecast
    engines: KnownEngines

    def signed_url(
        self, key: str | None, *, base_url: str, file_name: str, longest_seconds: int = sys.maxsize
    ) -> str | None:
        """A URL of the stored object, valid from now for the configured time, at most `longest_seconds`; None
        without a key."""
        if key is None:
            return None
        lifetime_seconds = min(self.settings.url_lifetime_seconds, longest_seconds)
        return self.storage.signed_url(
            key, base_url=base_url, file_name=file_name, lifetime_seconds=lifetime_seconds
        )


OpenResources = Callable[[Settings], AbstractContextManager[Resources]]


@contextmanager
def open_resources(
    settings: Settings,
    *,
    make_broker: Callable[[Settings], Broker] = open_broker,
    make_storage: Callable[[Settings, Secrets], Storage] = open_storage,
) -> Iterator[Resources]:
    """Raises ConfigurationError, FfmpegMissing or StorageError if the server cannot work with its set-up."""
    rate_limit = RateLimiter.from_settings(settings)
    settings.spool_dir.mkdir(parents=True, exist_ok=True)
    remove_stale_spool_files(settings.spool_dir)
    secrets = Secrets.load(settings)
    broker = make_broker(settings)
    database = Database.from_settings(settings)
    processors = os.cpu_count() or 1
    storage = make_storage(settings, secrets)
    spool_space = SpoolSpace(
        settings.spool_dir,
        keep_free_bytes=settings.min_free_disk_bytes,
        neighbours=Neighbours.of(settings, "spool"),
    )
    local_copies = LocalCopies(storage, spool_space)
    # Of those that concern the machine rather than one interpreter, each of several processes has its share.
    share = settings.share
    try:
        yield Resources(
            settings=settings,
            database=database,
            storage=storage,
            secrets=secrets,
            runner=FfmpegRunner.for_uploads(settings),
            limits=MediaLimits.from_settings(settings),
            broker=broker,
            rate_limit=rate_limit,
            spool_space=spool_space,
            probe_slots=SharedSlots(
                total=max(2, share(2 * processors)),
                per_user=share(processors),
                most_waiting_per_user=MOST_WAITING,
                busy="Too many videos are being examined just now. Try again soon.",
            ),
            fetch_slots=SharedSlots(
                total=max(2, share(MOST_FETCHES)),
                per_user=share(MOST_FETCHES_PER_USER),
                most_waiting_per_user=MOST_WAITING,
                busy="Too many videos are being fetched just now. Try again soon.",
            ),
            playback_slots=SharedSlots(
                total=max(2, share(MOST_PLAYBACKS)),
                per_user=share(MOST_PLAYBACKS_PER_USER),
                most_waiting_per_user=MOST_WAITING,
                busy="Too many parts of videos are being read just now. Try again soon.",
            ),
            still_slots=SharedSlots(
                total=max(2 * STILLS_PER_USER, share(processors)),
                per_user=STILLS_PER_USER,
                most_waiting_per_user=MOST_STILLS_WAITING,
                busy="Too many frames are being looked at just now. Try again soon.",
            ),
            local_copies=local_copies,
            turns=SharedSlots(
                total=MOST_TURNS,
                per_user=SQLITE_TURNS_PER_USER if database.is_sqlite else MOST_TURNS_PER_USER,
                most_waiting_per_user=MOST_WAITING_FOR_TURNS,
                busy="Too many requests wait for their turn just now. Try again soon, with fewer at once.",
            ),
            part_writers=LatestAlone(),
            forecast=Forecast(database, settings),
            engines=KnownEngines(database, silent_for=SILENT_LEASES * settings.lease_seconds),
        )
    finally:
        local_copies.drop_unused(kept_seconds=0)
        broker.close()
        database.close()


async def tidy_spool_directory(resources: Resources) -> None:
    """Runs for ever: the remains of a crash are removed a day later, even while the next process runs."""
    while True:
        await asyncio.sleep(TIDY_SECONDS)
        with suppress(OSError):  # reported by the uploads that meet it
            await to_thread.run_sync(remove_stale_spool_files, resources.settings.spool_dir)


async def drop_unused_copies(resources: Resources) -> None:
    """Runs for ever: copies of files are removed when nobody has used them for a while."""
    while True:
        await asyncio.sleep(COPIES_SECONDS)
        with suppress(OSError):
            await to_thread.run_sync(resources.local_copies.drop_unused)


def remove_stale_spool_files(spool_dir: Path) -> None:
    """Removes partial uploads that a crash left behind, once they are too old to be in progress."""
    newest = time.time() - STALE_SPOOL_SECONDS
    for path in spool_dir.glob(f"{SPOOL_PREFIX}*"):
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < newest:
                path.unlink()
                log.info("stale_upload_removed", name=path.name)
