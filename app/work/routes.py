"""Workers, for those who run the server."""

from fastapi import APIRouter

from app.http.dependencies import AdministratorDependency, ResourcesDependency
from app.work.schemas import Worker, WorkersBody
from app.work.workers import list_workers

router = APIRouter(tags=["administration"])


@router.get(
    "/v1/admin/workers",
    name="list_workers",
    response_model_exclude_none=True,
)
@router.get("/v1/workers", response_model_exclude_none=True)
def get_workers(_user: AdministratorDependency, resources: ResourcesDependency) -> WorkersBody:
    """Every worker that was heard of within a day. For keys made with `regen keys create --admin`."""
    with resources.database.read() as session:
        found = list_workers(session)
    lease_seconds = resources.settings.lease_seconds
    return WorkersBody(workers=[Worker.of(view, lease_seconds=lease_seconds) for view in found])
