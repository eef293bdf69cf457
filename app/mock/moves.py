"""The moves of one render, under the rules of real workers: claims, attempts, results through the ledger."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from fractions import Fraction
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session, joinedload

from app.platform.database import Database, database_now
from app.platform.errors import PermanentError
from app.platform.media.properties import VideoProperties
from app.platform.media.rates import Retime
from app.platform.storage.keys import segment_key
from app.platform.work_kinds import WorkKind
from app.renders.service import cost_in_gigapixels
from app.renders.statuses import RenderStatus, SegmentStatus
from app.renders.tables import Render, Segment
from app.work.ledger import PlannedSegment, WorkLedger
from app.work.queries import Claim
from models.catalog import ENGINES

WORKER_NAME = "mock"
# Nobody takes the mock's work away from it.
LEASE_SECONDS = 365 * 24 * 3600.0
NO_PLAN = "{}"
OPEN_STATUSES = tuple(status for status in RenderStatus if not status.is_final)


@dataclass(frozen=True, kw_only=True)
class OpenRender:
    """A render that has not ended, as far as the mock must know it."""

    id: str
    status: RenderStatus
    attempt: int
    created_at: datetime
    request_id: str | None
    file_sha256: str
    input_key: str
    engine: str
    target_fps: Fraction | None
    retime: Retime
    measures_quality: bool
    source: VideoProperties
    output: VideoProperties


class Moves:
    """Moves renders on, each by its id. What has ended or moved in the meantime is left as it is."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ledger = WorkLedger(
            database=database, worker=WORKER_NAME, lease_seconds=LEASE_SECONDS, max_attempts=1
        )

    def open_renders(self) -> Sequence[OpenRender]:
        """Every render that has not ended, the oldest first."""
        query = (
            select(Render)
            .options(joinedload(Render.file))
            .where(Render.status.in_(OPEN_STATUSES))
            .order_by(Render.created_at, Render.id)
        )
        with self._database.read() as session:
            return [_open_render(row) for row in session.scalars(query)]

    def begin(self, render: OpenRender) -> None:
        """From `queued` to `pending`."""
        self._claim(render, WorkKind.PREPARE, among=(RenderStatus.QUEUED,))

    def prepare(self, render: OpenRender) -> None:
        """From `pending` to `processing`, with one segment that is all of it."""
        claim = self._claim(render, WorkKind.PREPARE, among=(RenderStatus.PENDING,))
        if claim is None:
            return
        self._ledger.prepared(
            claim,
            plan=NO_PLAN,
            source=render.source,
            output=render.output,
            cost=_cost(render),
            warnings=[],
            segments=[PlannedSegment(frames=render.output.frames, plan=NO_PLAN)],
        )
        self._claim_segment(render)

    def report(self, render: OpenRender, *, progress: float) -> None:
        """How far it is, from 0 to 1."""
        frames = min(render.output.frames, int(render.output.frames * progress))
        with self._database.write() as session:
            session.execute(
                update(Segment)
                .where(Segment.render_id == render.id, Segment.status == SegmentStatus.RUNNING)
                .values(frames_done=frames)
            )

    def complete(
        self,
        render: OpenRender,
        *,
        output_key: str,
        thumbnail_key: str,
        warnings: Sequence[str],
        quality: Mapping[str, Any] | None,
    ) -> None:
        """From `processing` to `completed`, with these files in storage."""
        segment = self._claim_segment(render)
        if segment is not None:
            self._ledger.segment_done(
                segment, storage_key=segment_key(render.id, position=0, attempt=segment.attempt)
            )
        claim = self._claim(render, WorkKind.FINISH, among=(RenderStatus.PROCESSING,))
        if claim is None:
            return
        self._ledger.finished(
            claim,
            output_key=output_key,
            thumbnail_key=thumbnail_key,
            output=render.output,
            cost=_cost(render),
            warnings=warnings,
            quality=quality,
        )

    def fail(self, render: OpenRender, error: PermanentError) -> None:
        """To `failed`, as by a worker whose attempt cannot succeed."""
        claim = self._claim_segment(render)
        if claim is not None:
            self._ledger.failed(claim, error)

    def _claim(self, render: OpenRender, kind: WorkKind, *, among: tuple[RenderStatus, ...]) -> Claim | None:
        becomes = RenderStatus.PENDING if kind is WorkKind.PREPARE else RenderStatus.PROCESSING
        statement = (
            update(Render)
            .where(Render.id == render.id, Render.status.in_(among))
            .values(
                status=becomes,
                attempt=Render.attempt + 1,
                worker=WORKER_NAME,
                work_lease_expires_at=database_now(plus_seconds=LEASE_SECONDS),
            )
            .returning(Render.attempt)
        )
        with self._database.write() as session:
            attempt = session.scalar(statement)
        if attempt is None:
            return None
        return Claim(kind=kind, render_id=render.id, segment_id=None, attempt=attempt)

    def _claim_segment(self, render: OpenRender) -> Claim | None:
        """None when it is done already, or ended with its render."""
        with self._database.write() as session:
            return _claimed_segment(session, render.id)


def _claimed_segment(session: Session, render_id: str) -> Claim | None:
    unfinished = (SegmentStatus.WAITING, SegmentStatus.RUNNING)
    statement = (
        update(Segment)
        .where(Segment.render_id == render_id, Segment.status.in_(unfinished))
        .values(
            status=SegmentStatus.RUNNING,
            attempt=Segment.attempt + 1,
            worker=WORKER_NAME,
            lease_expires_at=database_now(plus_seconds=LEASE_SECONDS),
        )
        .returning(Segment.id, Segment.attempt)
    )
    row = session.execute(statement).one_or_none()
    if row is None:
        return None
    return Claim(kind=WorkKind.UPSCALE, render_id=render_id, segment_id=row[0], attempt=row[1])


def _cost(render: OpenRender) -> float:
    return cost_in_gigapixels(render.output, engine=ENGINES[render.engine])


def _open_render(row: Render) -> OpenRender:
    output = row.output
    if row.target_fps is not None:
        output = replace(output, duration_seconds=output.frames / output.frame_rate)
    return OpenRender(
        id=row.id,
        status=row.status,
        attempt=row.attempt,
        created_at=row.created_at,
        request_id=row.request_id,
        file_sha256=row.file.sha256,
        input_key=row.file.storage_key,
        engine=row.engine,
        target_fps=row.target_fps,
        retime=Retime(row.retime),
        measures_quality=row.measures_quality,
        source=row.input,
        output=output,
    )
