"""From a received form to rows: look at the upload, store it, write it down, wake a worker."""

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import TypeVar

import anyio
import structlog
from anyio import to_thread
from fastapi import Response
from sqlalchemy.orm import Session

from app.accounts.idempotency import Once, remember
from app.files.service import SpooledUpload, inspect_upload, store_upload
from app.files.tables import File
from app.http.access import CurrentUser
from app.http.idempotency import make_once
from app.http.resources import Resources
from app.platform.media.limits import check_output
from app.platform.media.probe import MediaInfo
from app.platform.work_kinds import WorkKind
from app.renders.schemas import RenderBody
from app.renders.service import RenderView
from app.renders.views import render_body

T = TypeVar("T")

# The publish is bounded by itself; this bounds what it is not, so that the answer leaves within 5 s of the commit.
WAKE_SECONDS = 4.0

log = structlog.get_logger(__name__)


async def accept_upload(
    upload: SpooledUpload,
    *,
    user: CurrentUser,
    resources: Resources,
    scale: int,
    target_fps: Fraction | None,
    then: Callable[[Session, File], T],
) -> T:
    """Look at the upload under the limits of input and output, store it, and commit its row with what `then` adds.

    Raises InvalidRequest for an empty file, NotAVideo, LimitExceeded, StorageError and Unavailable.
    """

    def inspect() -> MediaInfo:
        info = inspect_upload(upload, runner=resources.runner, limits=user.allowance.media)
        # Before the storage is touched: a file that cannot become an output is not worth keeping.
        check_output(info.video, scale=scale, target_fps=target_fps, limits=user.allowance.media)
        return info

    info = await to_thread.run_sync(inspect, limiter=resources.probe_slots)
    return await to_thread.run_sync(
        partial(
            store_upload,
            upload,
            info=info,
            user_id=user.id,
            allowance=user.allowance,
            api_key_id=user.key_id,
            storage=resources.storage,
            database=resources.database,
            then=then,
        )
    )


async def retry_once(
    once: Once | None,
    response: Response,
    resources: Resources,
    *,
    retry: Callable[[Session], RenderView],
    show: Callable[[Session, str], RenderView],
    base_url: str,
) -> RenderBody:
    """Make a render of a failed one in a transaction of its own, or `show` what an earlier request made. The answer."""

    def make() -> RenderView:
        with resources.database.write() as session:
            view = retry(session)
            remember(session, once, made_id=view.render.id)
            return view

    view, is_new = await make_once(
        once, response, resources, make=lambda: to_thread.run_sync(make), show=show
    )
    return await answer_with_render(view, response, resources, is_new=is_new, base_url=base_url)


async def answer_with_render(
    view: RenderView, response: Response, resources: Resources, *, is_new: bool, base_url: str
) -> RenderBody:
    """The answer that names the render. One that is new is logged, and a worker woken for it."""
    render = view.render
    if is_new:
        log.info("render_created", render_id=render.id, file_id=render.file_id, engine=render.engine)
        await announce_work(resources)
    response.headers["Location"] = f"{base_url}/v1/renders/{render.id}"
    return await to_thread.run_sync(lambda: render_body(view, resources=resources, base_url=base_url))


async def announce_work(resources: Resources) -> None:
    """Wake a worker, after the commit. A wake-up that fails or takes long is left to the workers' own sweeper."""
    with anyio.move_on_after(WAKE_SECONDS) as scope:
        await to_thread.run_sync(resources.broker.wake, WorkKind.PREPARE.queue, abandon_on_cancel=True)
    if scope.cancelled_caught:
        log.warning("wake_up_abandoned", after_seconds=WAKE_SECONDS)
