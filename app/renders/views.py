"""Rows as clients see them."""

from datetime import UTC, datetime
from fractions import Fraction

from app.files import schemas as file_schemas
from app.files.tables import File
from app.http.file_names import output_name
from app.http.resources import Resources
from app.platform.media.rates import Retime
from app.renders import schemas as render_schemas
from app.renders.options import find_engine
from app.renders.service import RenderView
from app.renders.statuses import RenderStatus
from app.renders.tables import Render
from app.work import schemas as work_schemas
from app.work.workers import WorkerView


def render_body(view: RenderView, *, resources: Resources, base_url: str) -> render_schemas.RenderBody:
    return render_schemas.RenderBody(render=view_of(view, resources=resources, base_url=base_url))


def view_of(view: RenderView, *, resources: Resources, base_url: str) -> render_schemas.Render:
    """The render with URLs signed now."""
    render = view.render
    completed = render.status is RenderStatus.COMPLETED
    has_results = completed and render.files_removed_at is None
    removed_at = [moment for moment in (render.files_removed_at, render.file.removed_at) if moment]
    scale = find_engine(render.engine).scale

    def signed(key: str | None, file_name: str) -> str | None:
        if key is None:
            return None
        return resources.storage.signed_url(
            key,
            base_url=base_url,
            file_name=file_name,
            lifetime_seconds=resources.settings.url_lifetime_seconds,
        )

    return render_schemas.Render(
        id=render.id,
        user_id=render.user_id,
        status=render.status.value,
        created_at=timestamp(render.created_at),
        queue_position=view.queue_position,
        input_file_url=signed(
            render.file.storage_key if render.file.removed_at is None else None, render.file.name
        ),
        output_file_url=signed(
            render.output_key if has_results else None,
            output_name(render.file.name, scale=scale, suffix=".mp4"),
        ),
        thumbnail_url=signed(
            render.thumbnail_key if has_results else None,
            output_name(render.file.name, scale=scale, suffix=".jpg"),
        ),
        completed_at=timestamp(render.completed_at) if completed and render.completed_at else None,
        engine=render.engine,
        target_fps=None if render.target_fps is None else number(render.target_fps),
        retime=None if render.retime == Retime.NEAREST else render.retime,
        file_id=render.file_id,
        cost=render.cost,
        progress=view.progress,
        eta_seconds=resources.forecast.eta_seconds(view),
        error=render.error if render.status is RenderStatus.FAILED else None,
        warnings=render.warnings or None,
        priority=render.priority or None,
        webhook_url=render.webhook_url,
        retry_of=render.retry_of,
        quality=None if render.quality is None else render_schemas.QualityBody.model_validate(render.quality),
        files_removed_at=timestamp(min(removed_at)) if removed_at else None,
        input=_input_facts(render),
        output=_output_facts(render),
    )


def file_body(file: File) -> file_schemas.FileBody:
    return file_schemas.FileBody(file=file_of(file))


def file_of(file: File) -> file_schemas.File:
    return file_schemas.File(
        id=file.id,
        name=file.name,
        size_bytes=file.size_bytes,
        width=file.width,
        height=file.height,
        frame_rate=number(file.frame_rate),
        duration_seconds=number(file.duration_seconds),
        created_at=timestamp(file.created_at),
    )


def worker_body(view: WorkerView, *, lease_seconds: float) -> work_schemas.Worker:
    return work_schemas.Worker(
        name=view.name,
        host=view.host,
        pid=view.pid,
        device=view.device,
        queues=[queue.value for queue in view.queues],
        engines=list(view.engines),
        version=view.version,
        started_at=timestamp(view.started_at),
        heartbeat_at=timestamp(view.heartbeat_at),
        alive=view.is_alive(lease_seconds=lease_seconds),
        work=None
        if view.kind is None
        else work_schemas.WorkInHand(
            kind=view.kind.value, render_id=view.render_id, segment_id=view.segment_id
        ),
        units_done=view.units_done,
    )


def timestamp(moment: datetime) -> str:
    """ISO 8601 in UTC with milliseconds and a Z: 2023-04-01T12:34:56.789Z."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def number(value: Fraction) -> int | float:
    """25 as 25, 30000/1001 as 29.97002997002997."""
    return value.numerator if value.denominator == 1 else float(value)


def _input_facts(render: Render) -> render_schemas.VideoFactsBody:
    return render_schemas.VideoFactsBody(
        width=render.input_width,
        height=render.input_height,
        frame_rate=number(render.input_frame_rate),
        duration_seconds=number(render.input_duration_seconds),
        frames=render.input_frames,
    )


def _output_facts(render: Render) -> render_schemas.VideoFactsBody:
    return render_schemas.VideoFactsBody(
        width=render.output_width,
        height=render.output_height,
        frame_rate=number(render.output_frame_rate),
        duration_seconds=number(render.output_duration_seconds),
        frames=render.output_frames,
    )
