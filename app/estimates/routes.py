"""POST /v1/estimates: what a render would cost and how long it would take, before anything is made."""

from dataclasses import replace
from functools import partial

from anyio import to_thread
from fastapi import Request

from app.estimates import schemas
from app.estimates.service import Estimate, estimate_file, estimate_unseen, estimate_upload
from app.estimates.suggestions import look_at_file, look_at_upload, suggest
from app.files.accept_video import accept_video, inspect_video
from app.http.access import CurrentUser
from app.http.dependencies import EnginesDependency, ReaderDependency, ResourcesDependency
from app.http.errors import documented
from app.http.forms import received_form
from app.http.resources import Resources
from app.http.router import BodyRouter
from app.http.shared_slots import ClientConnection
from app.platform.errors import LimitExceeded
from app.platform.media.picture_kind import PictureStatistics
from app.renders.schemas import UPSCALE_REQUEST, UpscaleForm

# Videos that are too long are read some way beyond the limit, so that the answer can say by how much.
BEYOND = 4

router = BodyRouter(tags=["estimates"])


@router.post("/v1/estimates", responses=documented(404, 413, 415), openapi_extra=UPSCALE_REQUEST)
async def estimate_render(
    request: Request,
    user: ReaderDependency,
    resources: ResourcesDependency,
    engines: EnginesDependency,
) -> schemas.EstimateBody:
    """The output, cost and time of `POST /v1/upscale` with the same body. Keeps the upload no longer than
    that, and makes no render."""
    async with received_form(request, UpscaleForm, user=user, resources=resources, is_kept=False) as form:
        asked = UpscaleForm.read(form, resources.settings, engines)
        if asked.form.needs_able_worker:
            await to_thread.run_sync(resources.forecast.require_encoder, asked.form)
        estimate, statistics = await _estimate(request, asked, user=user, resources=resources)
    suggestion = suggest(statistics, engines)
    return schemas.EstimateBody(
        estimate=schemas.Estimate.of(estimate, suggestion=suggestion, warnings=form.warnings)
    )


async def _estimate(
    request: Request, asked: UpscaleForm, *, user: CurrentUser, resources: Resources
) -> tuple[Estimate, PictureStatistics | None]:
    connection = ClientConnection(request=request)
    if asked.file_id is not None:
        of_file = partial(
            estimate_file,
            resources.database,
            resources.forecast,
            file_id=asked.file_id,
            options=asked,
            requester=user,
        )
        estimate = await to_thread.run_sync(of_file)
        return estimate, await look_at_file(
            asked.file_id, user=user, resources=resources, connection=connection
        )
    limits = replace(
        resources.limits,
        max_duration_seconds=BEYOND * resources.limits.max_duration_seconds,
        max_output_frames=BEYOND * resources.limits.max_output_frames,
    )
    async with accept_video(
        asked.file,
        asked.file_url,
        connection=connection,
        user=user,
        resources=resources,
        is_kept=False,
    ) as upload:
        try:
            info = await inspect_video(
                upload, limits=limits, user=user, resources=resources, connection=connection
            )
        except LimitExceeded as refusal:
            return estimate_unseen(asked, refusal), None
        of_upload = partial(
            estimate_upload,
            resources.database,
            resources.forecast,
            info=info,
            size_bytes=upload.size_bytes,
            options=asked,
            requester=user,
        )
        estimate = await to_thread.run_sync(of_upload)
        return estimate, await look_at_upload(
            upload.path, info.video, user=user, resources=resources, connection=connection
        )
