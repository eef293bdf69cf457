"""The shown progress of renders: progress, queue position and the work ahead."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.platform.database import ColumnReader
from app.renders import queries as render_queries
from app.renders import workload
from app.renders.queries import FramesDone, ShownRender
from app.renders.statuses import RenderStatus
from app.renders.workload import WorkAhead
from models.catalog import ENGINES


def progress(status: RenderStatus, frames: FramesDone | None) -> float:
    """From 0 to 1. `frames` is None before the render is prepared, and may be None for a completed one."""
    if status is RenderStatus.COMPLETED:
        return 1.0
    return frames.done / frames.total if frames and frames.total else 0.0


@dataclass(frozen=True, kw_only=True)
class RenderView:
    """A render with the values counted for its representation. `work` is the work before its end, None once
    it has ended."""

    render: ShownRender
    queue_position: int | None
    progress: float
    frames: FramesDone | None = None
    work: WorkAhead | None = None


def view_render(reader: ColumnReader, render: ShownRender) -> RenderView:
    """The render with its queue position (while queued) and its progress from 0 to 1."""
    return view_renders(reader, [render])[0]


def view_renders(reader: ColumnReader, rows: Sequence[ShownRender]) -> list[RenderView]:
    """As `view_render`, for several renders, with the same few statements for each of their users."""
    places: dict[str, int] = {}
    ahead: dict[str, WorkAhead] = {}
    # Earlier work with other added engines is not counted: which ones there are is in the database alone.
    engines = tuple(dict.fromkeys([*ENGINES, *sorted({row.engine for row in rows})]))
    for user_id in {row.user_id for row in rows if not row.status.is_final}:
        own = [row for row in rows if row.user_id == user_id and not row.status.is_final]
        queued = [row.id for row in own if row.status is RenderStatus.QUEUED]
        if queued:
            places |= render_queries.queue_positions(reader, user_id=user_id, render_ids=queued)
        open_ids = [row.id for row in own]
        ahead |= workload.work_ahead(reader, user_id=user_id, render_ids=open_ids, engines=engines)
    counted = [row.id for row in rows if row.status not in (RenderStatus.QUEUED, RenderStatus.COMPLETED)]
    frames = render_queries.frames_done(reader, render_ids=counted) if counted else {}
    return [
        RenderView(
            render=row,
            # It may have been claimed between the two statements.
            queue_position=places.get(row.id, 1) if row.status is RenderStatus.QUEUED else None,
            progress=progress(row.status, frames.get(row.id)),
            frames=frames.get(row.id),
            work=ahead.get(row.id),
        )
        for row in rows
    ]
