"""The mock's units of work: one segment for each render, enlarged by ffmpeg's scaler."""

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from app.mock.fault_rules import RenderFault
from app.mock.results import ResultMaker, form_of, playlist_facts
from app.platform.errors import FfmpegCancelled, FfmpegError, PermanentError, StorageError
from app.platform.media.codecs import VmafTarget, encoder_quality
from app.platform.media.info import VideoProperties
from app.platform.storage.keys import output_key, segment_key, thumbnail_key
from app.platform.work_kinds import WorkKind
from app.renders.service import cost_in_gigapixels
from app.renders.tables import Render
from app.work.heartbeat import Heartbeat
from app.work.ledger import WorkLedger
from app.work.loop import Cancelled, WorkUnit
from app.work.planning import PlannedSegment, playlist_values
from app.work.queries import Job, ReadyUnits
from models.catalog import ENGINES

NO_PLAN = "{}"
NO_RESULT = "The mock could not enlarge this video."


@dataclass(frozen=True, kw_only=True)
class MockUnits:
    """`fault_of` returns the fault that a rule chose for the render with that id."""

    ledger: WorkLedger
    results: ResultMaker
    fault_of: Callable[[str], RenderFault | None]

    def by_kind(self) -> Mapping[WorkKind, WorkUnit]:
        return {
            WorkKind.PREPARE: self.prepare,
            WorkKind.UPSCALE: self.upscale,
            WorkKind.FINISH: self.finish,
        }

    def prepare(self, job: Job, heartbeat: Heartbeat, cancelled: Cancelled) -> ReadyUnits:
        render = self._render(job)
        output = _output(render)
        return self.ledger.prepared(
            job,
            plan=NO_PLAN,
            source=render.input,
            output=output,
            cost=_cost(render),
            warnings=[],
            segments=[PlannedSegment(frames=output.frames, plan=NO_PLAN)],
        )

    def upscale(self, job: Job, heartbeat: Heartbeat, cancelled: Cancelled) -> ReadyUnits:
        """Makes the whole output, and keeps it for the finish."""
        render = self._render(job)
        heartbeat.frames_done = _output(render).frames
        fault = self.fault_of(job.render_id)
        if fault is not None and fault.fail is not None:
            raise PermanentError(fault.fail)
        with permanent_errors():
            self.results.make(render, cancelled=cancelled)
        return self.ledger.segment_done(
            job, storage_key=segment_key(job.render_id, position=0, attempt=job.attempt)
        )

    def finish(self, job: Job, heartbeat: Heartbeat, cancelled: Cancelled) -> ReadyUnits:
        render = self._render(job)
        file = form_of(render).file
        video_key = output_key(job.render_id, attempt=job.attempt, suffix=file.suffix)
        picture_key = thumbnail_key(job.render_id, attempt=job.attempt)
        with permanent_errors():
            video, picture = self.results.make(render, cancelled=cancelled)
            self.results.store(video, video_key, content_type=file.content_type)
            self.results.store(picture, picture_key, content_type="image/jpeg")
        times, has_sound = playlist_facts(video)
        fault = self.fault_of(job.render_id)
        self.ledger.finished(
            job,
            playlist=playlist_values(times, video_key if has_sound else None),
            output_key=video_key,
            thumbnail_key=picture_key,
            output=_output(render),
            cost=_cost(render),
            warnings=[] if fault is None else fault.warnings,
            quality=_plausible_quality(render) if render.measures_quality else None,
            encoded_quality=_plausible_search(render),
        )
        return Counter()

    def _render(self, job: Job) -> Render:
        with self.ledger.database.read() as session:
            render = session.get_one(Render, job.render_id)
            _ = render.file.sha256  # loaded before the session ends
            return render


@contextmanager
def permanent_errors() -> Iterator[None]:
    """Turns errors of ffmpeg and the storage into a PermanentError: the mock neither retries nor waits."""
    try:
        yield
    except FfmpegCancelled:
        raise
    except (FfmpegError, StorageError) as error:
        # Not chained: a full disk among the causes would count as an outage.
        raise PermanentError(NO_RESULT, detail=f"{error.message} {error.detail or ''}".strip()) from None


def _output(render: Render) -> VideoProperties:
    output = render.output
    if render.target_fps is None:
        return output
    return replace(output, duration_seconds=output.frames / output.frame_rate)


def _cost(render: Render) -> float:
    return cost_in_gigapixels(_output(render), engine=ENGINES[render.engine])


def _plausible_search(render: Render) -> dict[str, Any] | None:
    """As of a search that found the target in one segment; None without a target."""
    target = encoder_quality(render.output_quality)
    if not isinstance(target, VmafTarget):
        return None
    vmaf = round(target.vmaf + 0.25, 3)
    return {
        "target": target.vmaf,
        "vmaf": {"min": vmaf, "mean": vmaf},
        "crf": {"min": 22.5, "max": 22.5},
        "model": "vmaf_v0.6.1",
    }


def _plausible_quality(render: Render) -> dict[str, Any]:
    """Plausible values of the metrics, the same for the same input."""
    digest = hashlib.sha256(f"{render.file.sha256}/{render.engine}".encode()).hexdigest()
    source = random.Random(digest)  # noqa: S311  (repeatable)
    return {
        "psnr": round(source.uniform(34.0, 42.0), 2),
        "ssim": round(source.uniform(0.95, 0.99), 4),
        "temporalStability": round(source.uniform(38.0, 46.0), 2),
        "warpingError": round(source.uniform(1e-4, 4e-4), 8),
        "warpingErrorInput": round(source.uniform(1e-4, 2e-4), 8),
        "frames": min(render.output.frames, 30),
        **({"stabiliseEffect": _plausible_effect(render, source)} if render.stabilise else {}),
    }


def _plausible_effect(render: Render, source: random.Random) -> dict[str, Any]:
    before = source.uniform(2e-4, 8e-4)
    return {
        "warpingErrorBefore": round(before, 8),
        "warpingErrorAfter": round(before * (1 - 0.2 * render.stabilise), 8),
        "sharpnessLost": round(0.04 * render.stabilise + source.uniform(0, 0.02), 4),
        "psnrToUnfiltered": round(46.0 - 2 * render.stabilise + source.uniform(0, 1), 3),
        "pairs": min(render.output.frames, 8),
    }
