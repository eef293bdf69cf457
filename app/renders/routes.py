"""Renders: how far they are, where their results lie, and how to be rid of them."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app.accounts.scopes import Scope
from app.http.access import Access
from app.http.dependencies import (
    AccessDependency,
    PageDependency,
    PublicUrlDependency,
    ResourcesDependency,
    UserDependency,
)
from app.http.errors import documented
from app.http.idempotency import IdempotencyDependency, once_of
from app.http.openapi import LOCATION
from app.renders import cancellation
from app.renders import service as render_service
from app.renders.accept_video import retry_once
from app.renders.options import find_engine
from app.renders.schemas import RenderBody, RendersBody
from app.renders.statuses import RenderStatus
from app.renders.views import render_body, view_of
from models.catalog import ENGINES

router = APIRouter()


@router.get("/v1/renders", response_model_exclude_none=True, responses=documented(400, 401, 429, 503))
def list_renders(
    user: UserDependency,
    resources: ResourcesDependency,
    base_url: PublicUrlDependency,
    page: PageDependency,
    status: Annotated[RenderStatus | None, Query(description="Only those of this status.")] = None,
    engine: Annotated[
        str | None,
        Query(description="Only those of this engine.", json_schema_extra={"enum": list(ENGINES)}),
    ] = None,
) -> RendersBody:
    """Your renders, the newest first."""
    with resources.database.read() as session:
        views, cursor = render_service.list_renders(
            session,
            user_id=user.id,
            limit=page.limit,
            cursor=page.cursor,
            status=status,
            engine=None if engine is None else find_engine(engine),
        )
    shown = [view_of(view, resources=resources, base_url=base_url) for view in views]
    return RendersBody(renders=shown, next_cursor=cursor)


@router.get("/v1/renders/{render_id}", response_model=RenderBody, responses=documented(401, 404, 429, 503))
# How the hosted API's getting-started page writes it.
@router.get("/renders/{render_id}", include_in_schema=False)
async def get_render(render_id: str, access: AccessDependency, base_url: PublicUrlDependency) -> Response:
    """A render of yours. Its URLs are signed afresh with every answer."""
    # The most frequent request: one trip to a thread, one transaction, serialized once.
    return await access.run(_read_render, access, render_id=render_id, base_url=base_url)


def _read_render(access: Access, *, render_id: str, base_url: str) -> Response:
    with access.resources.database.read() as session:
        user = access.require(session, Scope.READ)
        view = render_service.find_render(session, render_id=render_id, user_id=user.id)
    body = render_body(view, resources=access.resources, base_url=base_url)
    return Response(body.model_dump_json(by_alias=True, exclude_none=True), media_type="application/json")


@router.post(
    "/v1/renders/{render_id}/cancel",
    response_model_exclude_none=True,
    responses=documented(401, 404, 409, 429, 503),
)
def cancel_render(
    render_id: str, user: UserDependency, resources: ResourcesDependency, base_url: PublicUrlDependency
) -> RenderBody:
    """End a render of yours that is not completed: it is `failed` at once, with the error "Canceled"."""
    with resources.database.write() as session:
        view = cancellation.cancel_render(session, render_id=render_id, user_id=user.id)
    return render_body(view, resources=resources, base_url=base_url)


@router.post(
    "/v1/renders/{render_id}/retry",
    response_model_exclude_none=True,
    responses={200: LOCATION, **documented(400, 401, 404, 409, 413, 429, 503)},
)
async def retry_render(
    request: Request,
    response: Response,
    render_id: str,
    user: UserDependency,
    resources: ResourcesDependency,
    base_url: PublicUrlDependency,
    key: IdempotencyDependency,
) -> RenderBody:
    """Ask again for what a failed render of yours was asked for: a new render, which names it in `retryOf`."""
    return await retry_once(
        once_of(key, request, user),
        response,
        resources,
        retry=lambda session: render_service.retry_render(
            session,
            render_id=render_id,
            user_id=user.id,
            allowance=user.allowance,
            api_key_id=user.key_id,
            request_id=request.state.request_id,
        ),
        show=lambda session, made_id: render_service.find_render(session, render_id=made_id, user_id=user.id),
        base_url=base_url,
    )


@router.delete(
    "/v1/renders/{render_id}",
    status_code=HTTPStatus.NO_CONTENT,
    responses=documented(401, 404, 409, 429, 503),
)
def delete_render(render_id: str, user: UserDependency, resources: ResourcesDependency) -> Response:
    """Remove a render of yours that has ended, with its results. The uploaded file stays."""
    cancellation.delete_render(resources.database, resources.storage, render_id=render_id, user_id=user.id)
    return Response(status_code=HTTPStatus.NO_CONTENT)
