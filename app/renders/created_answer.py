"""The answer to a request that made a render."""

import anyio
import structlog
from anyio import to_thread

from app.accounts.idempotency import IdempotentRequest
from app.http.resources import Resources
from app.platform.work_kinds import WorkKind
from app.renders.progress import view_render
from app.renders.schemas import RenderBody
from app.renders.tables import Render

# Publishing has its own time limit; this one bounds the rest, so that the answer is sent within 5 s of the commit.
WAKE_SECONDS = 4.0

log = structlog.get_logger(__name__)


async def answer_with_render(
    render: Render, *, idempotent: IdempotentRequest, resources: Resources, base_url: str
) -> RenderBody:
    """The committed render, and its `Location`. Logs a new render and wakes a worker for it."""
    if not idempotent.is_replayed:
        log.info("render_created", render_id=render.id, file_id=render.file_id, engine=render.engine)
        await announce_work(resources)
    idempotent.headers["Location"] = f"{base_url}/v1/renders/{render.id}"
    return await to_thread.run_sync(show_render, render, resources, base_url)


def show_render(render: Render, resources: Resources, base_url: str) -> RenderBody:
    """The committed render as it is now: its counts do not block a writer."""
    with resources.database.read() as session:
        view = view_render(session, render)
    return RenderBody.of(view, resources=resources, base_url=base_url)


async def announce_work(resources: Resources) -> None:
    """Wake a worker, after the commit. If the wake-up fails or is slow, the workers' sweeper replaces it."""
    with anyio.move_on_after(WAKE_SECONDS) as scope:
        await to_thread.run_sync(resources.broker.wake, WorkKind.PREPARE.queue, abandon_on_cancel=True)
    if scope.cancelled_caught:
        log.warning("wake_up_abandoned", after_seconds=WAKE_SECONDS)
