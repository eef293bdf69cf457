"""The needs of work: whether this machine lacked something when a unit of work met an outage."""

from dataclasses import dataclass

import structlog

from app.platform.errors import RegenError, StorageError
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.storage.contract import Storage
from app.work.outage_retry import OutageRetry
from worker.workspace import Workspace

CHECK_SECONDS = 10.0
# With less than this, or less than this share of it, the disk counts as full.
LEAST_FREE_BYTES = 256 * 1024**2
LEAST_FREE_SHARE = 0.02

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Needs:
    storage: Storage
    workspace: Workspace
    runner: FfmpegRunner

    def are_met(self, outage_retry: OutageRetry) -> bool:
        """Whether storage, disk and video program work otherwise, within CHECK_SECONDS."""
        try:
            is_met = outage_retry.call_with_timeout(self._check, seconds=CHECK_SECONDS)
        except (RegenError, OSError) as error:
            log.info("need_not_met", error=str(error), detail=getattr(error, "detail", None))
            return False
        return is_met

    def _check(self) -> None:
        free_bytes = self.workspace.free_bytes
        if free_bytes < min(LEAST_FREE_BYTES, LEAST_FREE_SHARE * self.workspace.capacity_bytes):
            raise StorageError("The disk is full.", detail=f"{free_bytes:,} bytes are free")
        self.storage.check()
        self.runner.run(["-version"], purpose="looking whether it starts")
