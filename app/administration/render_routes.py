"""Renders and workers of everybody, for those who run the server: the scope `admin` is needed."""

from fastapi import APIRouter, Request, Response

from app.administration import service as administration_service
from app.http.dependencies import AdministratorDependency, PublicUrlDependency, ResourcesDependency
from app.http.errors import documented
from app.http.idempotency import IdempotencyDependency, once_of
from app.http.openapi import LOCATION
from app.platform.work_kinds import WorkQueue
from app.renders.accept_video import retry_once
from app.renders.schemas import RenderBody
from app.renders.views import render_body
from app.usage.allowances import Allowance

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
        view = administration_service.requeue_render(session, render_id=render_id)
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
        retry=lambda session: administration_service.retry_for_owner(
            session,
            render_id=render_id,
            allowance=Allowance(media=resources.limits),
            request_id=request.state.request_id,
        ),
        show=lambda session, made_id: administration_service.find_any_render(session, render_id=made_id),
        base_url=base_url,
    )
