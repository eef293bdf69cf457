"""The files of a unit of work: its input, its segments, and the space that they take on this machine."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from app.platform.errors import DiskTooSmall, StorageError
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.storage.contract import Storage
from app.platform.storage.keys import segments_prefix
from app.work.loop import Cancelled
from app.work.outage_retry import OutageRetry, is_disk_full
from app.work.queries import Job
from worker.transfers import StorageTransfers
from worker.video.continuous_copy import ContinuousCopy, write_continuous_copy
from worker.workspace import Workspace

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class JobFiles:
    storage: Storage
    workspace: Workspace
    runner: FfmpegRunner
    outage_retry: OutageRetry

    def input(self, job: Job, cancelled: Cancelled) -> Path:
        fetch = partial(self.transfers.fetch, cancelled=cancelled)
        with self.room_for([job.input_key], copies=1):
            return self.workspace.fetch_input(
                file_id=job.file_id, storage_key=job.input_key, fetch=fetch, cancelled=cancelled
            )

    def readable_input(self, job: Job, continuous: ContinuousCopy | None, cancelled: Cancelled) -> Path:
        """The input, or the copy that replaces it, which is cached like an input."""
        if continuous is None:
            return self.input(job, cancelled)

        def write(_storage_key: str, path: Path) -> None:
            source = self.input(job, cancelled)
            write_continuous_copy(self.runner, source, continuous, path, cancelled=cancelled)

        return self.workspace.fetch_input(
            file_id=f"{job.file_id}-continuous",
            storage_key=job.input_key,
            fetch=write,
            cancelled=cancelled,
        )

    @property
    def transfers(self) -> StorageTransfers:
        return StorageTransfers(
            storage=self.storage, outage_retry=self.outage_retry, make_room=self.workspace.drop_inputs
        )

    @contextlib.contextmanager
    def room_for(self, keys: Sequence[str], *, copies: int) -> Iterator[None]:
        """Raises DiskTooSmall if the block fills the disk and so many copies of the stored objects never fit there."""
        try:
            yield
        except Exception as error:
            if not is_disk_full(error):
                raise
            needed_bytes = copies * sum(self.storage.stat(key).size_bytes for key in keys)
            if needed_bytes > self.workspace.capacity_bytes:
                raise DiskTooSmall(
                    "The video needs more space than a worker's disk has.",
                    detail=f"{needed_bytes:,} bytes",
                ) from error
            raise

    def remove_segments(self, render_id: str) -> None:
        try:
            self.storage.delete_all([stored.key for stored in self.storage.list(segments_prefix(render_id))])
        except StorageError as error:
            # The render is complete; its segments only take up space.
            log.warning("segments_not_removed", render_id=render_id, error=error.message)
