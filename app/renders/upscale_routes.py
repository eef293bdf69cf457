"""POST /v1/upscale: a video, a file uploaded before, or what lies at a URL becomes a queued render."""

from dataclasses import dataclass
from functools import partial

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from sqlalchemy.orm import Session

from app.accounts.idempotency import Once, remember
from app.files.fetched_video import FILE_URL_FIELD, fetched_video, url_faults
from app.files.service import find_file_to_use
from app.files.tables import File
from app.http.access import CurrentUser
from app.http.dependencies import PublicUrlDependency, ResourcesDependency, UserDependency
from app.http.errors import documented
from app.http.forms import received_form
from app.http.idempotency import IdempotencyDependency, make_once, once_of
from app.http.multipart import FILE_FIELD, ReceivedForm
from app.http.openapi import LOCATION
from app.http.request_documentation import UPSCALE_REQUEST
from app.http.resources import Resources
from app.platform.errors import InvalidRequest
from app.platform.settings import Settings
from app.renders.accept_video import accept_upload, answer_with_render
from app.renders.options import OPTION_FIELDS, RenderOptions, parse_options
from app.renders.schemas import RenderBody
from app.renders.service import RenderView, create_render, find_render, view_render
from app.webhooks.urls import require_permitted

router = APIRouter()

TEXT_FIELDS = frozenset({"file_id", FILE_URL_FIELD, *OPTION_FIELDS})


@dataclass(frozen=True, kw_only=True)
class UpscaleRequest:
    """What was asked for. Exactly one of the form's upload, `file_id` and `file_url` is given."""

    file_id: str | None
    file_url: str | None
    options: RenderOptions


@router.post(
    "/v1/upscale",
    response_model_exclude_none=True,
    responses={200: LOCATION, **documented(400, 401, 404, 409, 413, 415, 429, 503)},
    openapi_extra=UPSCALE_REQUEST,
)
async def upscale(
    request: Request,
    response: Response,
    user: UserDependency,
    resources: ResourcesDependency,
    base_url: PublicUrlDependency,
    key: IdempotencyDependency,
) -> RenderBody:
    """Upscale a video four times. Send `file`, or `file_id` of a file that was uploaded before.

    Where the server's operator allows it, `file_url` may name a video for the server to fetch.
    """
    async with received_form(
        request,
        resources=resources,
        max_file_bytes=user.allowance.max_upload_bytes,
        text_fields=TEXT_FIELDS,
    ) as form:
        asked, once = understand(form, resources.settings), once_of(key, request, user, form)
        if asked.options.webhook_url is not None:
            networks = resources.settings.outbound_allowed_networks
            require_permitted(asked.options.webhook_url, allowed_networks=networks)
        view, is_new = await make_once(
            once,
            response,
            resources,
            make=lambda: _create(request, form, asked, once, user=user, resources=resources),
            show=lambda session, made_id: find_render(session, render_id=made_id, user_id=user.id),
        )
    return await answer_with_render(view, response, resources, is_new=is_new, base_url=base_url)


async def _create(
    request: Request,
    form: ReceivedForm,
    asked: UpscaleRequest,
    once: Once | None,
    *,
    user: CurrentUser,
    resources: Resources,
) -> RenderView:
    def add_render(session: Session, file: File) -> RenderView:
        render = create_render(
            session,
            file=file,
            options=asked.options,
            allowance=user.allowance,
            api_key_id=user.key_id,
            request_id=request.state.request_id,
        )
        remember(session, once, made_id=render.id)
        return view_render(session, render)

    def add_render_of_file(file_id: str) -> RenderView:
        with resources.database.write() as session:
            return add_render(session, find_file_to_use(session, file_id=file_id, user_id=user.id))

    if asked.file_id is not None:
        return await to_thread.run_sync(add_render_of_file, asked.file_id)
    accept = partial(
        accept_upload,
        user=user,
        resources=resources,
        scale=asked.options.engine.scale,
        target_fps=asked.options.target_fps,
        then=add_render,
    )
    if asked.file_url is not None:
        async with fetched_video(asked.file_url, request=request, user=user, resources=resources) as fetched:
            return await accept(fetched)
    assert form.upload is not None
    return await accept(form.upload)


def understand(form: ReceivedForm, settings: Settings) -> UpscaleRequest:
    """Check every field, cheaply. Raises InvalidRequest with one message per fault."""
    faults = list(form.faults.values())
    file_id, file_url = form.fields.get("file_id"), form.fields.get(FILE_URL_FIELD)
    sources = {FILE_FIELD: form.upload, "file_id": file_id, FILE_URL_FIELD: file_url}
    given = [name for name, source in sources.items() if source is not None or name in form.faults]
    if len(given) != 1:
        named = " and ".join(f"`{name}`" for name in given) or "none"
        faults.append(
            f"Exactly one of `{FILE_FIELD}`, `file_id` and `{FILE_URL_FIELD}` is needed; given: {named}."
        )
    elif file_id == "":
        faults.append("`file_id` is empty.")
    elif file_url is not None:
        faults += url_faults(file_url, settings)
    options = RenderOptions()
    try:
        options = parse_options(form.fields)
    except InvalidRequest as error:
        faults += error.messages
    if faults:
        raise InvalidRequest(*faults)
    return UpscaleRequest(file_id=file_id, file_url=file_url, options=options)
