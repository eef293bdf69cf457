"""Workers, for administrators."""

from collections.abc import Callable

from app.http.dependencies import AdministratorDependency, ResourcesDependency
from app.http.errors import documented
from app.http.resources import Resources
from app.http.router import BodyRouter
from app.platform.errors import NotFound
from app.work import worker_standing
from app.work.schemas import Worker, WorkerBody, WorkersBody
from app.work.workers import list_workers

router = BodyRouter(tags=["administration"])


@router.get("/v1/admin/workers", name="list_workers")
@router.get("/v1/workers")
def get_workers(_user: AdministratorDependency, resources: ResourcesDependency) -> WorkersBody:
    """Every worker that reported within a day. For keys made with `regen keys create --admin`."""
    with resources.database.read() as session:
        found = list_workers(session)
    lease_seconds = resources.settings.lease_seconds
    return WorkersBody(workers=[Worker.of(view, lease_seconds=lease_seconds) for view in found])


@router.post("/v1/admin/workers/{name}/drain", responses=documented(404))
def drain_worker(name: str, _admin: AdministratorDependency, resources: ResourcesDependency) -> WorkerBody:
    """Stop a worker from claiming, within seconds. It finishes its work in hand; the process continues."""
    return _changed(resources, name, worker_standing.drain)


@router.post("/v1/admin/workers/{name}/resume", responses=documented(404))
def resume_worker(name: str, _admin: AdministratorDependency, resources: ResourcesDependency) -> WorkerBody:
    """Let a drained or quarantined worker claim again."""
    return _changed(resources, name, worker_standing.resume)


def _changed(resources: Resources, name: str, change: Callable[..., bool]) -> WorkerBody:
    with resources.database.write() as session:
        if not change(session, name=name):
            raise NotFound("Worker not found")
        (view,) = [view for view in list_workers(session) if view.name == name]
    return WorkerBody(worker=Worker.of(view, lease_seconds=resources.settings.lease_seconds))
