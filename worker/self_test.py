"""Tests whether this worker can work: its video programs with a few frames, and each of its networks with one."""

from dataclasses import dataclass, replace

import numpy as np

from app.platform.errors import TransientError
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.self_test import MEMORY_BYTES, WALL_SECONDS, check_programs
from app.platform.progress import current_progress
from models.catalog import SCALE
from worker.inference.frames import FrameFormat
from worker.loaded_upscaler import Networks, UpscalerKey
from worker.workspace import Workspace

FRAME = FrameFormat(width=64, height=36)
# A ramp of the codes of limited range; its result is not a single colour.
FIRST_CODE, LAST_CODE = 16, 235


@dataclass(frozen=True, kw_only=True)
class SelfTest:
    """`engines` are those with which this worker upscales, none for a worker without a device."""

    runner: FfmpegRunner
    networks: Networks
    workspace: Workspace
    engines: tuple[str, ...]

    def run(self) -> None:
        """For the thread that runs units of work. Raises a RegenError, or any error of a broken device."""
        limits = replace(self.runner.limits, wall_seconds=WALL_SECONDS, memory_bytes=MEMORY_BYTES)
        with self.workspace.job_directory() as scratch:
            check_programs(self.runner.under(limits), scratch)
        for engine_id in self.engines:
            current_progress().beat()
            self._upscale_one(engine_id)
        self.networks.release()

    def _upscale_one(self, engine_id: str) -> None:
        target = FrameFormat(width=FRAME.width * SCALE, height=FRAME.height * SCALE)
        upscaler = self.networks.upscaler(UpscalerKey(engine_id=engine_id, source=FRAME, target=target))
        ramp = np.linspace(FIRST_CODE, LAST_CODE, FRAME.frame_bytes).astype(np.uint8)
        (result,) = upscaler.upscale([ramp])
        if result.size != target.frame_bytes or result.min() == result.max():
            raise TransientError(
                "A network's result is not a picture.", detail=f"{engine_id}: {result.size} bytes"
            )
