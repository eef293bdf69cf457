"""Renders as clients make and see them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction

from sqlalchemy.orm import Session

from app.core.errors import Conflict, InvalidRequest, NotFound
from app.core.media.limits import MediaLimits, check_output, output_frame_count
from app.core.media.rates import Retime
from app.core.repositories import files, renders
from app.core.secrets import new_id
from app.core.statuses import RenderStatus
from app.core.tables import File, Render
from models.catalog import ENGINES, Engine

PIXELS_PER_GIGAPIXEL = 1e9
LEAST_PRIORITY, MOST_PRIORITY = -100, 100


@dataclass(frozen=True, kw_only=True)
class RenderView:
    """A render and what has to be counted to show it."""

    render: Render
    queue_position: int | None
    progress: float


def find_engine(engine_id: str) -> Engine:
    """Raises InvalidRequest for an engine that does not exist."""
    engine = ENGINES.get(engine_id)
    if engine is None:
        known = " or ".join(f'"{name}"' for name in ENGINES)
        raise InvalidRequest(f"`engine` must be {known}.")
    return engine


def parse_priority(text: str) -> int:
    """A render's place among its user's own. Raises InvalidRequest for what is no whole number of the range."""
    if re.fullmatch(r"[+-]?[0-9]{1,3}", text) and LEAST_PRIORITY <= int(text) <= MOST_PRIORITY:
        return int(text)
    raise InvalidRequest(f"`priority` must be a whole number from {LEAST_PRIORITY} to {MOST_PRIORITY}.")


def parse_measures_quality(text: str) -> bool:
    """Whether the output's quality is to be measured. Raises InvalidRequest for what is neither true nor false."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    raise InvalidRequest("`quality` must be true or false.")


def cost_in_gigapixels(*, width: int, height: int, frames: int, engine: Engine) -> float:
    """The output's frames times its pixels, in units of 1e9, times the engine's multiplier. Unrounded."""
    return width * height * frames * engine.cost_multiplier / PIXELS_PER_GIGAPIXEL


def create_render(
    session: Session,
    *,
    file: File,
    engine: Engine,
    target_fps: Fraction | None,
    limits: MediaLimits,
    request_id: str | None = None,
    priority: int = 0,
    retime: Retime = Retime.NEAREST,
    measures_quality: bool = False,
    retry_of: str | None = None,
) -> Render:
    """A queued render of the file. Raises LimitExceeded when its output would be over a limit.

    `request_id` is that of the request that asks for it, `retry_of` the failed render that it is to stand in for.
    """
    check_output(file, scale=engine.scale, target_fps=target_fps, limits=limits)
    width, height = file.width * engine.scale, file.height * engine.scale
    frames = output_frame_count(file, target_fps)
    render = Render(
        id=new_id(),
        user_id=file.user_id,
        file=file,
        engine=engine.id,
        target_fps=target_fps,
        status=RenderStatus.QUEUED,
        created_at=datetime.now(UTC),
        warnings=[],
        cost=cost_in_gigapixels(width=width, height=height, frames=frames, engine=engine),
        input_width=file.width,
        input_height=file.height,
        input_frame_rate=file.frame_rate,
        input_duration_seconds=file.duration_seconds,
        input_frames=file.frames,
        output_width=width,
        output_height=height,
        output_frame_rate=target_fps or file.frame_rate,
        output_duration_seconds=file.duration_seconds,
        output_frames=frames,
        request_id=request_id,
        priority=priority,
        retime=retime,
        measures_quality=measures_quality,
        retry_of=retry_of,
    )
    session.add(render)
    session.flush()
    return render


def view_render(session: Session, render: Render) -> RenderView:
    """The render with its place in the queue (while queued) and its progress from 0 to 1."""
    return view_renders(session, [render])[0]


def view_renders(session: Session, rows: Sequence[Render]) -> list[RenderView]:
    """As `view_render`, of one user's renders, for the price of one."""
    queued = [row.id for row in rows if row.status is RenderStatus.QUEUED]
    places = renders.queue_positions(session, user_id=rows[0].user_id, render_ids=queued) if queued else {}
    counted = [row.id for row in rows if row.status not in (RenderStatus.QUEUED, RenderStatus.COMPLETED)]
    frames = renders.frames_done(session, render_ids=counted) if counted else {}

    def progress(row: Render) -> float:
        if row.status is RenderStatus.COMPLETED:
            return 1.0
        done = frames.get(row.id)
        return done.done / done.total if done and done.total else 0.0

    return [
        RenderView(
            render=row,
            # It may have been claimed between the two statements.
            queue_position=places.get(row.id, 1) if row.status is RenderStatus.QUEUED else None,
            progress=progress(row),
        )
        for row in rows
    ]


def list_renders(
    session: Session,
    *,
    user_id: str,
    limit: int,
    cursor: str | None,
    status: RenderStatus | None,
    engine: Engine | None,
) -> tuple[list[RenderView], str | None]:
    """A page of the user's renders, the newest first, and the cursor of the next. Raises InvalidRequest."""
    page = renders.list_renders(
        session,
        user_id=user_id,
        limit=limit,
        cursor=cursor,
        status=status,
        engine=None if engine is None else engine.id,
    )
    return view_renders(session, page.rows) if page.rows else [], page.cursor


def retry_render(
    session: Session, *, render_id: str, user_id: str, limits: MediaLimits, request_id: str | None
) -> RenderView:
    """A new render that asks for what a failed one did.

    Raises NotFound for an unknown render and another user's, Conflict for one that has not failed or whose file is
    gone, LimitExceeded when limits have become tighter.
    """
    failed = find_render(session, render_id=render_id, user_id=user_id).render
    if failed.status is not RenderStatus.FAILED:
        raise Conflict("Only a render that failed can be tried again.")
    file = files.find_file_to_use(session, file_id=failed.file_id, user_id=user_id)
    if file is None:
        raise Conflict("The uploaded file is gone: upload it again.")
    render = create_render(
        session,
        file=file,
        engine=find_engine(failed.engine),
        target_fps=failed.target_fps,
        limits=limits,
        request_id=request_id,
        priority=failed.priority,
        retime=Retime(failed.retime),
        measures_quality=failed.measures_quality,
        retry_of=failed.id,
    )
    return view_render(session, render)


def find_render(session: Session, *, render_id: str, user_id: str) -> RenderView:
    """Raises NotFound for an unknown render and for another user's."""
    render = renders.find_render(session, render_id=render_id, user_id=user_id)
    if render is None:
        raise NotFound("Render not found")
    return view_render(session, render)
