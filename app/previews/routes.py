"""Previews: one frame of a file before and after, ahead of the queue."""

from collections.abc import Sequence
from functools import partial
from http import HTTPStatus

from anyio import to_thread
from fastapi import Request, Response

from app.accounts.idempotency import IdempotentRequest
from app.engines.service import require_engine
from app.files.moments import exact_moment
from app.files.service import find_file_to_use
from app.files.tables import File
from app.http.access import CurrentUser
from app.http.dependencies import (
    EnginesDependency,
    IdempotencyDependency,
    PageDependency,
    PublicUrlDependency,
    ResourcesDependency,
    UserDependency,
)
from app.http.errors import documented
from app.http.long_polling import APPLIED_HEADER, WaitDependency, held_answers
from app.http.openapi import LOCATION
from app.http.resources import Resources
from app.http.router import BodyRouter
from app.platform.errors import InvalidRequest, NotFound, Unavailable
from app.platform.media.rectangles import Area
from app.previews import queries as preview_queries
from app.previews import schemas, tables
from app.previews import service as preview_service
from models.catalog import Engine

router = BodyRouter(tags=["previews"])


@router.post(
    "/v1/previews",
    responses={
        200: {"headers": {**LOCATION["headers"], **APPLIED_HEADER}},
        **documented(404, 409, 413),
    },
)
async def create_preview(
    asked: schemas.PreviewRequest,
    request: Request,
    response: Response,
    user: UserDependency,
    resources: ResourcesDependency,
    base_url: PublicUrlDependency,
    idempotent: IdempotencyDependency,
    wait: WaitDependency,
    engines: EnginesDependency,
) -> schemas.PreviewBody:
    """Upscale one frame of a file of yours, ahead of all renders. The preview is kept for a day."""
    engine = require_engine(asked.engine, engines)
    _check(asked)
    warnings = asked.warnings(request)
    idempotent.content.append(asked.model_dump(mode="json"))
    preview = await to_thread.run_sync(_make_preview, asked, engine, warnings, user, resources, idempotent)
    response.headers["Location"] = f"{base_url}/v1/previews/{preview.id}"
    if wait:
        await _hold(request, response, resources, preview.id, seconds=wait)
        preview = await to_thread.run_sync(_latest, resources, preview, user.id)
    return await to_thread.run_sync(partial(_body, preview, resources=resources, base_url=base_url))


def _make_preview(
    asked: schemas.PreviewRequest,
    engine: Engine,
    warnings: Sequence[str],
    user: CurrentUser,
    resources: Resources,
    idempotent: IdempotentRequest,
) -> tables.Preview:
    with resources.database.write() as session:
        made_id = idempotent.lookup(session, lock=True)
        if made_id is not None:
            return preview_service.find_preview(session, preview_id=made_id, user_id=user.id)
        file = find_file_to_use(session, file_id=asked.file_id, user_id=user.id)
        preview = preview_service.create_preview(
            session,
            file=file,
            engine=engine,
            at_seconds=exact_moment(asked.at_seconds),
            crop=_crop_of(asked, file),
            size=asked.size,
            strength=asked.strength,
            grain=asked.grain,
            stabilise=asked.stabilise,
            deinterlace=asked.deinterlace,
            limits=user.allowance.media,
            max_open=resources.settings.max_open_previews_per_user,
            warnings=warnings,
        )
        idempotent.record(session, made_id=preview.id)
    return preview


@router.get("/v1/previews")
def list_previews(
    user: UserDependency, resources: ResourcesDependency, base_url: PublicUrlDependency, page: PageDependency
) -> schemas.PreviewsBody:
    """Your previews, the newest first."""
    with resources.database.read() as session:
        found = preview_queries.list_previews(session, user_id=user.id, limit=page.limit, cursor=page.cursor)
    shown = [schemas.Preview.of(row, resources=resources, base_url=base_url) for row in found.rows]
    return schemas.PreviewsBody(previews=shown, next_cursor=found.cursor)


@router.get("/v1/previews/{preview_id}", responses={200: {"headers": APPLIED_HEADER}, **documented(404)})
async def get_preview(
    preview_id: str,
    request: Request,
    response: Response,
    user: UserDependency,
    resources: ResourcesDependency,
    base_url: PublicUrlDependency,
    wait: WaitDependency,
) -> schemas.PreviewBody:
    """A preview of yours. Its URLs are signed afresh with every answer."""
    if wait:
        # An unknown preview is answered at once.
        await to_thread.run_sync(_find, resources, preview_id, user.id)
        await _hold(request, response, resources, preview_id, seconds=wait)
    preview = await to_thread.run_sync(_find, resources, preview_id, user.id)
    return await to_thread.run_sync(partial(_body, preview, resources=resources, base_url=base_url))


@router.delete(
    "/v1/previews/{preview_id}",
    status_code=HTTPStatus.NO_CONTENT,
    responses=documented(404),
)
def delete_preview(preview_id: str, user: UserDependency, resources: ResourcesDependency) -> Response:
    """Delete a preview of yours with its images. One that has not ended is canceled."""
    preview_service.delete_preview(
        resources.database, resources.storage, preview_id=preview_id, user_id=user.id
    )
    return Response(status_code=HTTPStatus.NO_CONTENT)


async def _hold(
    request: Request, response: Response, resources: Resources, preview_id: str, *, seconds: int
) -> None:
    has_ended = partial(_has_ended, resources, preview_id)
    await held_answers.hold(request, response, seconds, has_ended=has_ended)


def _has_ended(resources: Resources, preview_id: str) -> bool:
    with resources.database.read() as session:
        return preview_queries.is_ended(session, preview_id=preview_id)


def _find(resources: Resources, preview_id: str, user_id: str) -> tables.Preview:
    with resources.database.read() as session:
        return preview_service.find_preview(session, preview_id=preview_id, user_id=user_id)


def _latest(resources: Resources, made: tables.Preview, user_id: str) -> tables.Preview:
    """The preview's present state; its state at creation if the database does not answer, because it exists."""
    try:
        return _find(resources, made.id, user_id)
    except (Unavailable, NotFound):
        return made


def _body(preview: tables.Preview, *, resources: Resources, base_url: str) -> schemas.PreviewBody:
    return schemas.PreviewBody(preview=schemas.Preview.of(preview, resources=resources, base_url=base_url))


def _check(asked: schemas.PreviewRequest) -> None:
    """Raises InvalidRequest, before the database is asked."""
    if (asked.crop_width is None) != (asked.crop_height is None):
        raise InvalidRequest("`crop_width` and `crop_height` are needed together.")
    if asked.crop is not None and asked.crop_width is not None:
        raise InvalidRequest("Either `crop`, or `crop_width` and `crop_height`: not both.")


def _crop_of(asked: schemas.PreviewRequest, file: File) -> Area | None:
    """The requested part of the file's frames. Raises InvalidRequest if it is larger than they are."""
    if asked.crop is not None:
        return Area(x=asked.crop.x, y=asked.crop.y, width=asked.crop.width, height=asked.crop.height)
    if asked.crop_width is None or asked.crop_height is None:
        return None
    if asked.crop_width > file.video.width or asked.crop_height > file.video.height:
        raise InvalidRequest(
            f"`crop_width` and `crop_height` are more than the frame's {file.video.width} x {file.video.height} pixels."
        )
    frame = Area(x=0, y=0, width=file.video.width, height=file.video.height)
    return frame.centred(width=asked.crop_width, height=asked.crop_height)
