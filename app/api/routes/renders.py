"""Renders: how far they are, and where their results lie."""

from fastapi import APIRouter

from app.api.dependencies import PublicUrlDependency, ResourcesDependency, UserDependency
from app.api.errors import documented
from app.api.schemas import RenderBody
from app.api.views import render_body
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
