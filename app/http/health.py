"""Health and readiness probes.

No route here waits for a thread of the requests' pool: a server whose threads are all busy still answers.
"""

from fastapi import APIRouter, Response
from pydantic import Field

from app.http.body import Body, with_example
from app.http.dependencies import HealthChecksDependency
from app.http.errors import documented, error_response
from app.http.health_checks import FAULTS, PartState

router = APIRouter(tags=["health"])

RETRY_AFTER_SECONDS = 5


class HealthBody(Body):
    model_config = with_example({"status": "ok"})

    status: str = Field(description="`ok`; anything else is an error's answer.")


class ReadyBody(HealthBody):
    model_config = with_example(
        {"status": "ok", "parts": {"database": "ok", "migrations": "ok", "storage": "ok", "broker": "ok"}}
    )

    parts: dict[str, str] = Field(description="`ok` for each part that the server stands on.")


@router.get("/healthz")
async def healthz() -> HealthBody:
    """The process lives."""
    return HealthBody(status="ok")


@router.get("/readyz", response_model=ReadyBody, responses=documented(503))
async def readyz(checks: HealthChecksDependency) -> ReadyBody | Response:
    """Database, migrations, storage and broker can be used. Otherwise 503, with one message for each that cannot."""
    states = await checks.parts()
    faults = [FAULTS[part] for part, state in states.items() if state is PartState.FAILED]
    if faults:
        return error_response(503, faults, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})
    return ReadyBody(status="ok", parts={part.value: state.value for part, state in states.items()})
