"""Renders: how far they are, where their results lie, and how to be rid of them."""

from fastapi import APIRouter, Response, status

from app.api.dependencies import PublicUrlDependency, ResourcesDependency, UserDependency
from app.api.errors import documented
from app.api.schemas import RenderBody
from app.api.views import render_body
from app.core.services import cancellation
from app.core.services.renders import find_render

router = APIRouter()


@router.get(
    "/v1/renders/{render_id}", response_model_exclude_none=True, responses=documented(401, 404, 429, 503)
)
# How the hosted API's getting-started page writes it.
@router.get("/renders/{render_id}", response_model_exclude_none=True, include_in_schema=False)
def get_render(
    render_id: str, user: UserDependency, resources: ResourcesDependency, base_url: PublicUrlDependency
) -> RenderBody:
    """A render of yours. Its URLs are signed afresh with every answer."""
    with resources.database.read() as session:
        view = find_render(session, render_id=render_id, user_id=user.id)
        return render_body(view, resources=resources, base_url=base_url)


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


@router.delete(
    "/v1/renders/{render_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=documented(401, 404, 409, 429, 503),
)
def delete_render(render_id: str, user: UserDependency, resources: ResourcesDependency) -> Response:
    """Remove a render of yours that has ended, with its results. The uploaded file stays."""
    cancellation.delete_render(resources.database, resources.storage, render_id=render_id, user_id=user.id)
    return Response(status_code=status.HTTP_204_NO_CONTENT)
