"""Work as workers see it: claim a unit, keep its lease, report how it ended.

Each method is one short transaction. What a method returns as ReadyUnits is how many pieces of work became ready by
it, by queue, so that the caller can wake workers after the commit.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import structlog

from app.core.database import Database
from app.core.errors import LeaseLost, PermanentError
from app.core.repositories import work
from app.core.repositories.work import Claim, ReadyUnits
from app.core.secrets import new_id
from app.core.statuses import SegmentStatus, WorkKind, WorkQueue
from app.core.tables import Segment

LONGEST_PAUSE_SECONDS = 300.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class RenderJob:
    """What a worker must know of a render to work on it. `plan` is None until it is prepared."""

    render_id: str
    file_id: str
    input_key: str
    engine: str
    target_fps: Fraction | None
    plan: str | None


@dataclass(frozen=True, kw_only=True)
class SegmentJob:
    """One segment: its place in the render, its plan, and once it is done where its file lies."""

    position: int
    plan: str
    storage_key: str | None


@dataclass(frozen=True, kw_only=True)
class PlannedSegment:
    """A segment as prepared: the frames it upscales and its plan."""

    frames: int
    plan: str


@dataclass(frozen=True, kw_only=True)
class VideoFacts:
    """A video's measured size, rate and length. Width and height are as displayed, in pixels."""

    width: int
    height: int
    frame_rate: Fraction
    duration_seconds: Fraction
    frames: int


class WorkLedger:
    """One worker's view of the rows. `worker` names it in the rows it holds; it claims the work of `queues`."""

    def __init__(
        self,
        *,
        database: Database,
        worker: str,
        lease_seconds: float,
        max_attempts: int,
        queues: Iterable[WorkQueue] = tuple(WorkQueue),
    ) -> None:
        self.database = database
        self.worker = worker
        self.queues = frozenset(queues)
        self.lease_seconds = lease_seconds
        self.max_attempts = max_attempts

    def claim(self) -> Claim | None:
        """The most urgent unit of its queues: a render to finish, else a segment, else a render to prepare."""
        claims = {
            WorkKind.FINISH: work.claim_finish,
            WorkKind.UPSCALE: work.claim_segment,
            WorkKind.PREPARE: work.claim_prepare,
        }
        with self.database.write() as session:
            for kind in WorkKind:
                if kind.queue not in self.queues:
                    continue
                claim = claims[kind](session, worker=self.worker, lease_seconds=self.lease_seconds)
                if claim is not None:
                    return claim
        return None

    def render_job(self, claim: Claim) -> RenderJob:
        with self.database.read() as session:
            render = work.get_render(session, render_id=claim.render_id)
            return RenderJob(
                render_id=render.id,
                file_id=render.file_id,
                input_key=render.file.storage_key,
                engine=render.engine,
                target_fps=render.target_fps,
                plan=render.plan,
            )

    def segment_job(self, claim: Claim) -> SegmentJob:
        assert claim.segment_id is not None
        with self.database.read() as session:
            return _segment_job(work.get_segment(session, segment_id=claim.segment_id))

    def segment_jobs(self, claim: Claim) -> Sequence[SegmentJob]:
        """Every segment of the claim's render, in the order of the video."""
        with self.database.read() as session:
            return [_segment_job(row) for row in work.segments_of(session, render_id=claim.render_id)]

    def renew(self, claim: Claim, *, frames_done: int) -> bool:
        """The heartbeat. False when the work is no longer this claim's: stop, report nothing."""
        with self.database.write() as session:
            return work.renew(session, claim, lease_seconds=self.lease_seconds, frames_done=frames_done)

    def prepared(
        self,
        claim: Claim,
        *,
        plan: str,
        source: VideoFacts,
        output: VideoFacts,
        cost: float,
        warnings: Iterable[str],
        segments: Sequence[PlannedSegment],
    ) -> ReadyUnits:
        """The render is `processing` and its segments wait: the units made ready. Raises LeaseLost."""
        now = datetime.now(UTC)
        rows = [
            Segment(
                id=new_id(),
                render_id=claim.render_id,
                position=position,
                status=SegmentStatus.WAITING,
                created_at=now,
                plan=segment.plan,
                frames=segment.frames,
            )
            for position, segment in enumerate(segments)
        ]
        values = {
            "plan": plan,
            "cost": cost,
            "warnings": list(warnings),
            **_fact_columns("input", source),
            **_fact_columns("output", output),
        }
        with self.database.write() as session:
            if not work.store_plan(session, claim, values=values, segments=rows):
                raise LeaseLost("The render was given to another worker.")
        return Counter({WorkKind.UPSCALE.queue: len(rows)})

    def segment_done(self, claim: Claim, *, storage_key: str) -> ReadyUnits:
        """When it was the render's last segment, the finish is ready. Raises LeaseLost."""
        with self.database.write() as session:
            if not work.complete_segment(session, claim, storage_key=storage_key):
                raise LeaseLost("The segment was given to another worker.")
            all_done = work.all_segments_done(session, render_id=claim.render_id)
        return Counter({WorkKind.FINISH.queue: 1} if all_done else {})

    def finished(
        self,
        claim: Claim,
        *,
        output_key: str,
        thumbnail_key: str,
        output: VideoFacts,
        cost: float,
        warnings: Iterable[str],
    ) -> None:
        """The render is `completed`. Raises LeaseLost."""
        values = {
            "completed_at": datetime.now(UTC),
            "output_key": output_key,
            "thumbnail_key": thumbnail_key,
            "cost": cost,
            "warnings": list(warnings),
            **_fact_columns("output", output),
        }
        with self.database.write() as session:
            if not work.complete_render(session, claim, values=values):
                raise LeaseLost("The render was given to another worker.")

    def failed(self, claim: Claim, error: Exception) -> None:
        """The attempt failed: the work goes back for another one after a pause that grows, or its render ends.

        A PermanentError ends the render at once, with its message; so does the last of `max_attempts`.
        """
        with self.database.write() as session:
            failures = work.give_back(session, claim, charged=True)
            if failures is None:
                return
            if isinstance(error, PermanentError):
                work.fail_render(session, render_id=claim.render_id, error=error.message)
            elif failures >= self.max_attempts:
                message = f"The video could not be processed: {_step(claim.kind)} failed {failures} times."
                work.fail_render(session, render_id=claim.render_id, error=message)
            else:
                work.postpone(session, claim, seconds=min(2.0**failures, LONGEST_PAUSE_SECONDS))

    def hand_back(self, claim: Claim) -> None:
        """The worker stops before the work is done: it goes back uncharged."""
        with self.database.write() as session:
            work.give_back(session, claim, charged=False)

    def give_back_expired(self) -> Sequence[Claim]:
        """Give back the work of workers that were not heard of for a lease. Returns the claims that ended so."""
        given_back = []
        with self.database.write() as session:
            for claim in work.expired_claims(session):
                failures = work.give_back(session, claim, charged=True)
                if failures is None:
                    continue
                given_back.append(claim)
                log.warning(
                    "lease_expired",
                    kind=claim.kind.value,
                    render_id=claim.render_id,
                    segment_id=claim.segment_id,
                    attempt=claim.attempt,
                    failures=failures,
                )
                if failures >= self.max_attempts:
                    message = (
                        f"The video could not be processed: the worker stopped unexpectedly {failures} times "
                        f"while {_step(claim.kind)} ran."
                    )
                    work.fail_render(session, render_id=claim.render_id, error=message)
        return given_back

    def ready_units(self) -> ReadyUnits:
        with self.database.read() as session:
            return work.ready_units(session)


def _segment_job(row: Segment) -> SegmentJob:
    return SegmentJob(position=row.position, plan=row.plan, storage_key=row.storage_key)


def _step(kind: WorkKind) -> str:
    return {
        WorkKind.PREPARE: "reading it",
        WorkKind.UPSCALE: "upscaling a part of it",
        WorkKind.FINISH: "putting the result together",
    }[kind]


def _fact_columns(prefix: str, facts: VideoFacts) -> dict[str, Any]:
    return {
        f"{prefix}_width": facts.width,
        f"{prefix}_height": facts.height,
        f"{prefix}_frame_rate": facts.frame_rate,
        f"{prefix}_duration_seconds": facts.duration_seconds,
        f"{prefix}_frames": facts.frames,
    }
