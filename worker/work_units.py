"""The three units of work: prepare a render, upscale a segment, finish a render.

Each unit fetches its files from storage, runs code that knows neither database nor storage, stores the
results under keys that contain the attempt, and changes the row. Each returns the units of work that this
made ready. During an outage of storage or database the unit keeps its results and repeats the call. A
repeated report may have arrived the first time; the ledger recognizes that.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog

from app.engines.service import stored_engine
from app.platform.errors import Canceled, PermanentError, Unavailable
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.limits import MediaLimits
from app.platform.media.probe import probe_video
from app.platform.media.time_range import part_of_video
from app.platform.progress import current_progress
from app.platform.settings import Settings
from app.platform.storage.contract import Storage
from app.platform.storage.keys import output_key, segment_key, thumbnail_key
from app.platform.work_kinds import WorkKind
from app.renders.service import cost_in_gigapixels
from app.work.drain import Drain
from app.work.heartbeat import Heartbeat
from app.work.ledger import WorkLedger
from app.work.loop import Cancelled, WorkUnit
from app.work.outage_retry import OutageRetry, is_outage
from app.work.planning import PlannedSegment, playlist_values
from app.work.queries import Job, ReadyUnits
from app.work.segment_length import segment_stretch
from models.catalog import ENGINES, Engine
from worker.accepted_file import accepted_file
from worker.agreed_precision import agree, several_precisions
from worker.device_turns import DeviceTurn, DeviceTurns
from worker.inference.mixing import PictureOptions
from worker.job_files import JobFiles
from worker.loaded_upscaler import Networks, UpscalerKey
from worker.metrics import SegmentMeter
from worker.noted_speeds import note_speeds
from worker.pipeline import run_segment
from worker.searched_quality import searched_quality
from worker.segment_eta import SegmentEta
from worker.video.continuous_copy import plan_continuous_copy, probe_copy
from worker.video.filter_effect import FilteredPair, stored_pairs
from worker.video.muxer import finish_render
from worker.video.plan import RenderPlan, SegmentPlan
from worker.video.quality import NOT_MEASURED, MeasuredQuality, measure_if_possible
from worker.video.segmenter import EarlyRelease, SettledSegments, plan_render
from worker.video.watching import segment_times
from worker.workspace import Workspace

Result = TypeVar("Result")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class WorkUnits:
    """The units of work of one worker process."""

    settings: Settings
    ledger: WorkLedger
    storage: Storage
    workspace: Workspace
    runner: FfmpegRunner
    limits: MediaLimits
    networks: Networks
    outage_retry: OutageRetry
    drain: Drain
    """Limits the time left for a segment."""
    wake: Callable[[ReadyUnits], None]
    """Announces segments that became ready while their render is still being prepared."""
    turns: DeviceTurns = field(default_factory=DeviceTurns)
    on_device_hang: Callable[[], None]
    """Ends the process: the last resort when the device no longer answers."""

    def by_kind(self) -> Mapping[WorkKind, WorkUnit]:
        units: Mapping[WorkKind, WorkUnit] = {
            WorkKind.PREPARE: self.prepare,
            WorkKind.UPSCALE: self.upscale,
            WorkKind.FINISH: self.finish,
        }
        return {kind: partial(self._keeping_inputs, unit) for kind, unit in units.items()}

    def _keeping_inputs(
        self, unit: WorkUnit, job: Job, heartbeat: Heartbeat, cancelled: Cancelled
    ) -> ReadyUnits:
        with self.workspace.using_inputs():
            return unit(job, heartbeat, cancelled)

    def prepare(self, job: Job, heartbeat: Heartbeat, cancelled: Cancelled) -> ReadyUnits:
        """Plans the render's segments from the timestamps of all frames. Makes the segments ready, those of a long
        video while it is still being read.
        """
        engine = self._engine(job)
        source = self._files.input(job, cancelled)
        with accepted_file():
            info = probe_video(self.runner, source, limits=self.limits)
            continuous = plan_continuous_copy(self.runner, source, info, cancelled=cancelled)
            if continuous is not None:
                source = self._files.readable_input(job, continuous, cancelled)
                info = probe_copy(self.runner, source, source=info, copy=continuous)
            input_part = part_of_video(info.video, job.part, begins_at=info.video_begins_at)
        begun, stretch = None, 1
        if job.plan is None:
            stretch = self._report(
                lambda: segment_stretch(
                    self.ledger.database, self.settings, job, engine=engine, source=input_part
                )
            )
        else:
            begun = RenderPlan.from_json(job.plan)
        plan, segments = plan_render(
            self.runner,
            source,
            info,
            options=job,
            scale=engine.scale,
            segment_seconds=stretch * self.settings.segment_seconds,
            segment_max_output_pixels=stretch * self.settings.segment_max_output_pixels,
            continuous=continuous,
            cancelled=cancelled,
            release=EarlyRelease(take=partial(self._release, job, heartbeat), begun=begun),
        )
        self._check_frames(plan)
        times = segment_times(plan, segments)
        has_sound = times is not None and any(stream.kind == "audio" for stream in info.others)
        with self._files.watched_sound(job, source if has_sound else None, plan, cancelled) as key:
            return self._report(
                lambda: self.ledger.prepared(
                    job,
                    plan=plan.to_json(),
                    source=replace(input_part, frames=plan.source_frame_count),
                    output=plan.output,
                    cost=cost_in_gigapixels(plan.output, engine=engine),
                    warnings=plan.warnings,
                    segments=_planned(segments),
                    playlist=playlist_values(times, key),
                )
            )

    def _release(self, job: Job, heartbeat: Heartbeat, settled: SettledSegments) -> bool:
        """Makes segments ready while the video is still being read. Returns False during an outage of the database: the
        reading goes on, and all that is planned by its end is reported then.
        """
        self._check_frames(settled.render)
        try:
            ready = self.ledger.release_segments(
                job,
                plan=settled.render.to_json(),
                segments=_planned(settled.segments),
                first=settled.segments[0].index,
                unplanned_frames=max(0, settled.expected_frames - settled.planned_frames),
            )
        except Unavailable as error:
            log.warning("segments_not_released", error=error.message, detail=error.detail)
            return False
        log.info("segments_released", segments=len(settled.segments), frames=settled.planned_frames)
        self.wake(ready)
        heartbeat.end_soon()
        return True

    def _check_frames(self, plan: RenderPlan) -> None:
        if plan.frame_count > self.limits.max_output_frames:
            raise PermanentError(
                f"The output would have {plan.frame_count:,} frames; "
                f"at most {self.limits.max_output_frames:,} are possible."
            )

    def upscale(self, job: Job, heartbeat: Heartbeat, cancelled: Cancelled) -> ReadyUnits:
        """Decodes, upscales and encodes one segment. The last segment makes the finish ready.

        Up to the first decoded frame, and from the last upscaled one on, it overlaps with other segments.
        """
        with self.turns.queued() as turn:
            return self._upscale(job, heartbeat, cancelled, turn)

    def _upscale(self, job: Job, heartbeat: Heartbeat, cancelled: Cancelled, turn: DeviceTurn) -> ReadyUnits:
        (segment_job,) = job.segments
        render, segment = _plan_of(job), SegmentPlan.from_json(segment_job.plan)
        eta = SegmentEta(frames=segment.used_frames, began_at=lambda: turn.began_at or turn.ready_at)

        def stopped() -> bool:
            # A segment that will not be done within the drain's grace is given back at once, as is one claimed ahead.
            will_be_late = (
                self.drain.requested if turn.is_ahead else eta.seconds_left > self.drain.seconds_left
            )
            return cancelled() or (will_be_late and turn.ended_at is None)

        if job.precision is None and not self.networks.knows_own_precision(job.engine):
            turn.wait(partial(_beat_unless, stopped))
        precision = self._report(
            lambda: agree(job, self.ledger, lambda: self.networks.own_precision(job.engine))
        )
        source = self._files.segment_input(job, render, segment, stopped)
        needed = UpscalerKey(
            engine_id=job.engine,
            source=render.source,
            target=render.target,
            picture=PictureOptions(
                strength=job.strength, grain=job.grain, is_stabilised=render.stabilise > 0
            ),
            precision=precision,
        )
        if not self.networks.has(needed):
            # The network in memory may still be needed.
            turn.wait(partial(_beat_unless, stopped))
        upscaler = self.networks.upscaler(needed)
        meter = SegmentMeter(
            engine=job.engine,
            device=self.networks.device,
            input_pixels=render.source.width * render.source.height,
            output_pixels=render.target.width * render.target.height,
        )

        def report(frames_done: int) -> None:
            if frames_done <= heartbeat.frames_done:  # done before, from an input that was not whole
                return
            heartbeat.frames_done = frames_done
            meter.progress(frames_done, since=turn.began_at or turn.ready_at)
            eta.progress(frames_done)
            if eta.seconds_left < self.turns.lead_seconds or turn.ended_at is not None:
                heartbeat.end_soon()

        file = render.segment_file
        key = segment_key(
            job.render_id, position=segment_job.position, attempt=job.attempt, suffix=file.suffix
        )
        quality = job.form.quality or self.settings.output_quality
        room = self._files.room_for_segment(job, render, segment, quality)
        with room, self.workspace.job_directory() as directory:
            result = directory / f"segment{file.suffix}"
            encoded = source.read_by(
                partial(
                    run_segment,
                    runner=self.runner,
                    destination=result,
                    render=render,
                    segment=segment,
                    upscaler=upscaler,
                    turn=turn,
                    quality=quality,
                    on_frame=report,
                    cancelled=stopped,
                    stall_seconds=self.settings.stall_seconds,
                    on_stall=self.on_device_hang,
                    measures_filter=job.measures_quality,
                )
            )
            searched_at = None if encoded.quality is None else time.monotonic()
            log.info(
                "segment_upscaled",
                frames=segment.used_frames,
                precision=precision,
                waited_seconds=round(turn.waited_seconds, 3),
                upscaling_seconds=round(turn.seconds - turn.waited_seconds, 3),
            )
            with self._files.transfers.removed_unless_reported(key):
                self._files.transfers.put(key, result, content_type=file.content_type, cancelled=cancelled)
                ready = self._report(
                    lambda: self.ledger.segment_done(
                        job, storage_key=key, precision=precision, **encoded.figures
                    )
                )
        note_speeds(
            self.ledger.database,
            device=self.networks.device_name,
            engine=job.engine,
            render=render,
            segment=segment,
            turn=turn,
            searched_at=searched_at,
        )
        return ready

    def finish(self, job: Job, heartbeat: Heartbeat, cancelled: Cancelled) -> ReadyUnits:
        """Joins the segments, adds the sound, makes the thumbnail, and measures the quality if requested."""
        render = _plan_of(job)
        segments = [SegmentPlan.from_json(segment_job.plan) for segment_job in job.segments]
        source = self._files.readable_input(job, render.continuous, cancelled)
        video_key = output_key(job.render_id, attempt=job.attempt, suffix=render.file.suffix)
        picture_key = thumbnail_key(job.render_id, attempt=job.attempt)
        keys = [segment_job.storage_key or "" for segment_job in job.segments]
        # The segments and what is made of them; with captions in their pictures, and joined first, where need be.
        copies = 2 + render.has_captions + (not render.file.is_iso)
        with self._files.room_for(keys, copies=copies), self.workspace.job_directory() as directory:
            files = [
                directory / f"segment-{position:06d}{render.segment_file.suffix}"
                for position in range(len(keys))
            ]
            self._files.transfers.fetch_all(dict(zip(keys, files, strict=True)), cancelled=cancelled)
            video, picture = directory / f"output{render.file.suffix}", directory / "thumbnail.jpg"
            finished = finish_render(
                runner=self.runner,
                source=source,
                segment_files=files,
                render=render,
                segments=segments,
                destination=video,
                thumbnail=picture,
                cancelled=cancelled,
            )
            searched, quality = searched_quality(job, render, segments), None
            more = (several_precisions(job.segments), None if searched is None else searched.warning)
            warnings = [*finished.warnings, *(one for one in more if one)]
            if job.measures_quality:
                pairs = stored_pairs(segment_job.filtered_pairs for segment_job in job.segments)
                quality = self._measured(source, video, render, segments, pairs, cancelled)
                if quality is None:
                    warnings.append(NOT_MEASURED)
            size_bytes = video.stat().st_size
            with self._files.transfers.removed_unless_reported(video_key, picture_key):
                self._files.transfers.put(
                    video_key, video, content_type=render.file.content_type, cancelled=cancelled
                )
                self._files.transfers.put(
                    picture_key, picture, content_type="image/jpeg", cancelled=cancelled
                )
                self._report(
                    lambda: self.ledger.finished(
                        job,
                        output_key=video_key,
                        thumbnail_key=picture_key,
                        output=render.output,
                        cost=cost_in_gigapixels(render.output, engine=self._engine(job)),
                        warnings=warnings,
                        quality=None if quality is None else quality.as_json(),
                        encoded_quality=None if searched is None else searched.as_json(),
                        output_bytes=size_bytes,
                    )
                )
        heartbeat.end()
        if render.file.is_iso:
            self._files.remove_segments(job.render_id)
        # Otherwise whoever watches them goes on until the clean-up: no fragments can be made of the result.
        return Counter()

    def _measured(
        self,
        source: Path,
        output: Path,
        render: RenderPlan,
        segments: Sequence[SegmentPlan],
        filtered_pairs: Sequence[FilteredPair],
        cancelled: Cancelled,
    ) -> MeasuredQuality | None:
        return measure_if_possible(
            self.runner,
            source=source,
            output=output,
            render=render,
            segments=segments,
            filtered_pairs=filtered_pairs,
            cancelled=cancelled,
            stall_seconds=self.settings.stall_seconds,
            # The signal that stops a worker may have stopped its ffmpeg as well.
            is_fatal=lambda error: self.drain.requested or is_outage(error),
        )

    def _engine(self, job: Job) -> Engine:
        """The job's engine: this worker need not have its weights."""

        def find() -> Engine:
            with self.ledger.database.read() as session:
                return stored_engine(session, job.engine)

        return ENGINES.get(job.engine) or self._report(find)

    def _report(self, call: Callable[[], Result]) -> Result:
        """Calls the database, again during outages. A lost heartbeat does not end it: the row decides."""
        return self.outage_retry.call(call, cancelled=lambda: self.drain.is_over)

    @property
    def _files(self) -> JobFiles:
        return JobFiles(
            storage=self.storage, workspace=self.workspace, runner=self.runner, outage_retry=self.outage_retry
        )


def _beat_unless(cancelled: Cancelled) -> None:
    current_progress().beat()
    if cancelled():
        raise Canceled()


def _planned(segments: Sequence[SegmentPlan]) -> list[PlannedSegment]:
    return [PlannedSegment(frames=segment.used_frames, plan=segment.to_json()) for segment in segments]


def _plan_of(job: Job) -> RenderPlan:
    assert job.plan is not None
    return RenderPlan.from_json(job.plan)
