"""POST /v1/estimates: what a render would cost and how long it would take, before anything is made."""

from dataclasses import replace

from anyio import to_thread
from fastapi import APIRouter, Request

from app.estimates import schemas
from app.estimates.service import Asker, Estimate, estimate_file, estimate_unseen, estimate_upload
from app.files.fetched_video import fetched_video
from app.files.service import SpooledUpload, find_file, inspect_upload
from app.http.access import CurrentUser
from app.http.dependencies import ReaderDependency, ResourcesDependency
from app.http.errors import documented
from app.http.forms import received_form
from app.http.request_documentation import UPSCALE_REQUEST
from app.http.resources import Resources
from app.platform.errors import LimitExceeded
from app.renders.upscale_routes import TEXT_FIELDS, UpscaleRequest, understand

# Videos that are too long are read some way beyond the limit, so that the answer can say by how much.
BEYOND = 4

router = APIRouter()


@router.post(
    "/v1/estimates",
    response_model_exclude_none=True,
    responses=documented(400, 401, 403, 404, 413, 415, 429, 503),
    openapi_extra=UPSCALE_REQUEST,
)
async def estimate_render(
    request: Request, user: ReaderDependency, resources: ResourcesDependency
) -> schemas.EstimateBody:
    """What `POST /v1/upscale` with the same body would make, cost and take. Nothing is kept or made."""
    async with received_form(
        request,
        resources=resources,
        max_file_bytes=user.allowance.max_upload_bytes,
        text_fields=TEXT_FIELDS,
    ) as form:
        asked = understand(form, resources.settings)
        if asked.file_url is None:
            estimate = await _estimate(form.upload, asked, user=user, resources=resources)
        else:
            async with fetched_video(
                asked.file_url, request=request, user=user, resources=resources
            ) as fetched:
                estimate = await _estimate(fetched, asked, user=user, resources=resources)
    return schemas.EstimateBody(estimate=_shown(estimate))


async def _estimate(
    upload: SpooledUpload | None, asked: UpscaleRequest, *, user: CurrentUser, resources: Resources
) -> Estimate:
    asker = Asker(user_id=user.id, api_key_id=user.key_id, allowance=user.allowance)
    options = asked.options

    def of_file(file_id: str) -> Estimate:
        outlook = resources.forecast.outlook()
        with resources.database.read() as session:
            file = find_file(session, file_id=file_id, user_id=user.id)
            return estimate_file(session, file, options=options, asker=asker, outlook=outlook)

    if asked.file_id is not None:
        return await to_thread.run_sync(of_file, asked.file_id)
    assert upload is not None
    limits = replace(
        resources.limits,
        max_duration_seconds=BEYOND * resources.limits.max_duration_seconds,
        max_output_frames=BEYOND * resources.limits.max_output_frames,
    )
    try:
        info = await to_thread.run_sync(
            lambda: inspect_upload(upload, runner=resources.runner, limits=limits),
            limiter=resources.probe_slots,
        )
    except LimitExceeded as refusal:
        return estimate_unseen(options, refusal)

    def of_upload() -> Estimate:
        outlook = resources.forecast.outlook()
        with resources.database.read() as session:
            return estimate_upload(
                session,
                info,
                size_bytes=upload.size_bytes,
                options=options,
                asker=asker,
                outlook=outlook,
            )

    return await to_thread.run_sync(of_upload)


def _shown(estimate: Estimate) -> schemas.Estimate:
    options, times = estimate.options, estimate.times
    return schemas.Estimate(
        engine=options.engine.id,
        target_fps=options.target_fps,
        input=estimate.input,
        output=estimate.output,
        cost=estimate.cost,
        expected_seconds=None if times is None else times.expected_seconds,
        wait_seconds=None if times is None else times.wait_seconds,
        measured_on=None if times is None else list(times.measured_on),
        accepted=not estimate.refusals,
        refusals=list(estimate.refusals),
    )
