"""Renders and workers of everybody, for those who run the server: the scope `admin` is needed."""

from fastapi import APIRouter, Request, Response

from app.api.dependencies import AdministratorDependency, PublicUrlDependency, ResourcesDependency
from app.api.errors import documented
from app.api.idempotency import IdempotencyDependency, once_of
from app.api.intake import retry_once
from app.api.openapi import LOCATION
from app.api.schemas.renders import RenderBody
from app.api.views import render_body
from app.core.services import requeueing
from app.core.services.allowances import Allowance
from app.core.statuses import WorkQueue

router = APIRouter()


@router.post(
    "/v1/admin/renders/{render_id}/requeue",
    response_model_exclude_none=True,
    responses=documented(401, 403, 404, 409, 503),
)
def requeue_render(
    render_id: str,
    _admin: AdministratorDependency,
    resources: ResourcesDependency,
    base_url: PublicUrlDependency,
) -> RenderBody:
    """Take an unfinished render of any user out of its workers' hands, uncharged and without a pause.

    What they have not reported yet is done again by whoever is next. A render that has ended answers 409.
    """
    with resources.database.write() as session:
        view = requeueing.requeue_render(session, render_id=render_id)
        body = render_body(view, resources=resources, base_url=base_url)
    for queue in WorkQueue:
        resources.broker.wake(queue)
    return body


@router.post(
    "/v1/admin/renders/{render_id}/retry",
    response_model_exclude_none=True,
    responses={200: LOCATION, **documented(400, 401, 403, 404, 409, 413, 503)},
)
async def retry_render_of_user(
    request: Request,
    response: Response,
    render_id: str,
    admin: AdministratorDependency,
    resources: ResourcesDependency,
    base_url: PublicUrlDependency,
    key: IdempotencyDependency,
) -> RenderBody:
    """As its user's own retry of a failed render, whatever the user's limits: the new one is theirs."""
    return await retry_once(
        once_of(key, request, admin),
        response,
        resources,
        retry=lambda session: requeueing.retry_for_owner(
            session,
            render_id=render_id,
            allowance=Allowance(media=resources.limits),
            request_id=request.state.request_id,
        ),
        show=lambda session, made_id: requeueing.find_any_render(session, render_id=made_id),
        base_url=base_url,
    )
