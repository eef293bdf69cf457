"""The files of a unit of work: its input, its segments, and the space that they take on this machine."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog

from app.platform.errors import (
    DiskTooSmall,
    FfmpegCancelled,
    FfmpegDiskFull,
    FfmpegError,
    FfmpegMissing,
    StorageError,
)
from app.platform.media.codecs import Quality, VmafTarget
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.storage.contract import Storage, delete_under
from app.platform.storage.keys import segments_prefix, sound_key
from app.work.loop import Cancelled
from app.work.outage_retry import OutageRetry, is_disk_full
from app.work.queries import Job
from worker.transfers import StorageTransfers
from worker.video.continuous_copy import ContinuousCopy, write_continuous_copy
from worker.video.decoder import WrongFrame
from worker.video.plan import RenderPlan, SegmentPlan
from worker.video.target_encoding import lossless_copy_bytes
from worker.video.watching import write_sound
from worker.workspace import Workspace

Result = TypeVar("Result")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class JobFiles:
    storage: Storage
    workspace: Workspace
    runner: FfmpegRunner
    outage_retry: OutageRetry

    def input(self, job: Job, cancelled: Cancelled) -> Path:
        with self.room_for([job.input_key], copies=1):
            return self.workspace.fetch_input(
                file_id=job.file_id,
                storage_key=job.input_key,
                fetch=partial(self.transfers.fetch_input, cancelled=cancelled),
                fetch_ranges=partial(self.transfers.fetch_input_ranges, job.input_key, cancelled=cancelled),
                cancelled=cancelled,
            )

    def segment_input(
        self, job: Job, render: RenderPlan, segment: SegmentPlan, cancelled: Cancelled
    ) -> "SegmentInput":
        """What the segment is decoded from: where possible, only the ranges of the input that it needs are fetched.

        A segment that ended without a result before is made from the whole input.
        """
        wanted = segment.input_ranges if render.seekable and render.continuous is None else None
        if wanted is None or job.attempt > 1 or self.storage.links_files:
            return SegmentInput(self.readable_input(job, render.continuous, cancelled))
        try:
            part = self.workspace.fetch_part_of_input(
                file_id=job.file_id,
                wanted=wanted,
                fetch_ranges=partial(self.transfers.fetch_input_ranges, job.input_key, cancelled=cancelled),
                cancelled=cancelled,
            )
        except OSError as error:
            if is_disk_full(error):
                raise
            log.warning("input_fetched_whole", reason=str(error))  # a disk without hard links or holes
            return SegmentInput(self.input(job, cancelled))

        def fetch_whole() -> Path:
            self.workspace.forget_part_of_input(job.file_id, cancelled=cancelled)
            return self.input(job, cancelled)

        return SegmentInput(part, fetch_whole)

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

    @contextlib.contextmanager
    def watched_sound(
        self, job: Job, source: Path | None, render: RenderPlan, cancelled: Cancelled
    ) -> Iterator[str | None]:
        """Store the source's sound to watch the segments with, under the key that this gives; None if there is none.

        Removes it again if the block raises.
        """
        key = sound_key(job.render_id, attempt=job.attempt)
        with self.workspace.job_directory() as directory:
            sound = directory / "sound.m4a"
            if source is None or not write_sound(
                self.runner, source, sound, render=render, cancelled=cancelled
            ):
                yield None
                return
            with self.transfers.removed_unless_reported(key):
                self.transfers.put(key, sound, content_type="audio/mp4", cancelled=cancelled)
                yield key

    @property
    def transfers(self) -> StorageTransfers:
        return StorageTransfers(
            storage=self.storage, outage_retry=self.outage_retry, make_room=self.workspace.drop_inputs
        )

    @contextlib.contextmanager
    def room_for(self, keys: Sequence[str], *, copies: int, made_bytes: int = 0) -> Iterator[None]:
        """Raises DiskTooSmall if the block fills the disk and so many copies of the stored objects never fit there,
        with what else is made of about `made_bytes`."""
        try:
            yield
        except Exception as error:
            if not is_disk_full(error):
                raise
            needed_bytes = copies * sum(self.storage.stat(key).size_bytes for key in keys) + made_bytes
            if needed_bytes > self.workspace.capacity_bytes:
                raise DiskTooSmall(
                    "The video needs more space than a worker's disk has.",
                    detail=f"{needed_bytes:,} bytes",
                ) from error
            raise

    def room_for_segment(
        self, job: Job, render: RenderPlan, segment: SegmentPlan, quality: Quality | VmafTarget
    ) -> contextlib.AbstractContextManager[None]:
        """As `room_for`, of the input and the copy of the segment that the search for a target's quality makes."""
        copy_bytes = lossless_copy_bytes(render, segment) if isinstance(quality, VmafTarget) else 0
        return self.room_for([job.input_key], copies=1, made_bytes=copy_bytes)

    def remove_segments(self, render_id: str) -> None:
        try:
            delete_under(self.storage, segments_prefix(render_id))
        except StorageError as error:
            # The render is complete; its segments only take up space.
            log.warning("segments_not_removed", render_id=render_id, error=error.message)


@dataclass(frozen=True)
class SegmentInput:
    """A file from which one segment is decoded. It is not whole if there is `fetch_whole`, which fetches the whole."""

    path: Path
    fetch_whole: Callable[[], Path] | None = None

    def read_by(self, run: Callable[..., Result]) -> Result:
        """What `run` returns for `source` and `is_whole`; if its decoder lacked bytes, again with the whole file."""
        if self.fetch_whole is None:
            return run(source=self.path, is_whole=True)
        try:
            return run(source=self.path, is_whole=False)
        except (FfmpegMissing, FfmpegDiskFull, FfmpegCancelled):
            raise
        except (WrongFrame, FfmpegError) as error:
            log.warning("segment_needs_whole_input", error=str(error))
            return run(source=self.fetch_whole(), is_whole=True)
