"""For those who watch the process: does it live, can it take work.

Nothing here waits for a thread of the requests' pool: a server that is busy to its last thread still answers.
"""

from fastapi import APIRouter, Response

from app.http.dependencies import HealthChecksDependency
from app.http.errors import documented, error_response
from app.http.health_checks import FAULTS, PartState
from app.http.health_schemas import HealthBody, ReadyBody

router = APIRouter(tags=["health"])

RETRY_AFTER_SECONDS = 5


@router.get("/healthz")
async def healthz() -> HealthBody:
    """The process lives."""
    return HealthBody(status="ok")


@router.get("/readyz", response_model=ReadyBody, responses=documented(503))
async def readyz(watch: HealthChecksDependency) -> ReadyBody | Response:
    """Database, migrations, storage and broker can be used. Otherwise 503, with one message for each that cannot."""
    states = await watch.parts()
    faults = [FAULTS[part] for part, state in states.items() if state is PartState.FAILED]
    if faults:
        return error_response(503, faults, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})
    return ReadyBody(status="ok", parts={part.value: state.value for part, state in states.items()})
