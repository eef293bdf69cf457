"""Rows as clients see them."""

from app.files import schemas as file_schemas
from app.files.tables import File
from app.http.resources import Resources
from app.renders import schemas as render_schemas
from app.renders.representation import links, shown_fields
from app.renders.service import RenderView
from app.work import schemas as work_schemas
from app.work.workers import WorkerView


def render_body(view: RenderView, *, resources: Resources, base_url: str) -> render_schemas.RenderBody:
    return render_schemas.RenderBody(render=view_of(view, resources=resources, base_url=base_url))


def view_of(view: RenderView, *, resources: Resources, base_url: str) -> render_schemas.Render:
    """The render with URLs signed now."""
    render = view.render
    removed_at = [moment for moment in (render.files_removed_at, render.file.removed_at) if moment]
    urls = {
        name: resources.storage.signed_url(
            link.storage_key,
            base_url=base_url,
            file_name=link.file_name,
            lifetime_seconds=resources.settings.url_lifetime_seconds,
        )
        for name, link in links(render).items()
    }
    return render_schemas.Render(
        **shown_fields(render, progress=view.progress, queue_position=view.queue_position),
        **urls,
        eta_seconds=resources.forecast.eta_seconds(view),
        files_removed_at=min(removed_at, default=None),
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
