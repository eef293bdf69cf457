"""Rows as clients see them."""

from app.files import schemas as file_schemas
from app.files.tables import File
from app.http.file_names import output_name
from app.http.resources import Resources
from app.platform.media.rates import Retime
from app.renders import schemas as render_schemas
from app.renders.options import find_engine
from app.renders.service import RenderView
from app.renders.statuses import RenderStatus
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
        created_at=render.created_at,
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
        completed_at=render.completed_at if completed else None,
        engine=render.engine,
        target_fps=render.target_fps,
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
        files_removed_at=min(removed_at, default=None),
        input=render.input,
        output=render.output,
    )


def file_body(file: File) -> file_schemas.FileBody:
    return file_schemas.FileBody(file=file_of(file))


def file_of(file: File) -> file_schemas.File:
    return file_schemas.File(
        id=file.id,
        name=file.name,
        size_bytes=file.size_bytes,
        width=file.video.width,
        height=file.video.height,
        frame_rate=file.video.frame_rate,
        duration_seconds=file.video.duration_seconds,
        created_at=file.created_at,
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
        started_at=view.started_at,
        heartbeat_at=view.heartbeat_at,
        alive=view.is_alive(lease_seconds=lease_seconds),
        work=None
        if view.kind is None
        else work_schemas.WorkInHand(
            kind=view.kind.value, render_id=view.render_id, segment_id=view.segment_id
        ),
        units_done=view.units_done,
    )
