"""A result is sent to its destination again."""

from typing import Annotated

from fastapi import Body

from app.destinations.schemas import DeliverRequest
from app.destinations.service import deliver_again
from app.http.dependencies import PublicUrlDependency, ResourcesDependency, UserDependency
from app.http.errors import documented
from app.http.router import BodyRouter
from app.renders.created_answer import show_render
from app.renders.schemas import RenderBody
from app.webhooks.urls import parse_destination, require_permitted

router = BodyRouter(tags=["renders"])


@router.post("/v1/renders/{render_id}/deliver", responses=documented(404, 409))
def deliver_result(
    render_id: str,
    user: UserDependency,
    resources: ResourcesDependency,
    base_url: PublicUrlDependency,
    asked: Annotated[DeliverRequest, Body(default_factory=DeliverRequest)],
) -> RenderBody:
    """Send the result of a completed render again now, whatever became of it: to its `destination`, or to another."""
    if asked.destination is not None:
        parse_destination(asked.destination)
        networks = resources.settings.outbound_allowed_networks
        require_permitted(asked.destination, allowed_networks=networks, field="destination")
    with resources.database.write() as session:
        render = deliver_again(session, render_id=render_id, user_id=user.id, destination=asked.destination)
    return show_render(render, resources, base_url)
