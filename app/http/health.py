"""Health and readiness probes.

No route here waits for a thread of the requests' pool: a server whose threads are all busy still answers.
"""

import asyncio
from typing import Annotated

from fastapi import Query, Response
from pydantic import Field

from app.http.body import Body, with_example
from app.http.dependencies import HealthChecksDependency, ReadinessDependency
from app.http.errors import documented, error_response
from app.http.health_checks import PartState
from app.http.router import BodyRouter
from app.work.workers import Workforce

router = BodyRouter(tags=["health"])

RETRY_AFTER_SECONDS = 5


class HealthBody(Body):
    model_config = with_example({"status": "ok"})

    status: str = Field(description="`ok`; anything else is an error's answer.")


class WorkforceBody(Body):
    alive: int = Field(description="Workers that reported within three leases.")
    stalled: int = Field(description="How many of these hold work that has not moved for three leases.")


class ReadyBody(HealthBody):
    model_config = with_example(
        {
            "status": "ok",
            "parts": {"database": "ok", "migrations": "ok", "storage": "ok", "broker": "ok"},
            "workers": {"alive": 2, "stalled": 0},
        }
    )

    parts: dict[str, PartState] | None = Field(
        None,
        description="Only with `parts`: the dependencies that all API processes share. `unknown`: they cannot "
        "be asked.",
    )
    workers: WorkforceBody | None = Field(None, description="With `parts`, if the database answered in time.")
    warnings: list[str] | None = Field(
        None,
        description="What keeps renders waiting although this server is ready: no worker is alive, or one stands "
        "still. Not there when there is nothing to warn of, nor while the database does not tell.",
    )


@router.get("/healthz")
async def healthz() -> HealthBody:
    """The process lives."""
    return HealthBody(status="ok")


@router.get("/readyz", response_model=ReadyBody, responses=documented(503))
async def readyz(
    readiness: ReadinessDependency,
    checks: HealthChecksDependency,
    parts: Annotated[
        str | None, Query(description="If present, with any value: report the state of the shared parts too.")
    ] = None,
) -> ReadyBody | Response:
    """This process can take requests: it has started, is not stopping, and has space for uploads. Otherwise
    503, with a message for each reason.

    Database, storage and broker, which all processes share, do not affect it once it has started. A server without
    workers is ready: it takes renders, which wait, and `warnings` says so as far as the database tells at once.
    """
    faults = await readiness.faults()
    if faults:
        return error_response(503, faults, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})
    if parts is None:
        return ReadyBody(status="ok", warnings=_warnings(await checks.workers_at_a_glance()))
    states, workforce = await asyncio.gather(checks.parts(), checks.workers())
    return ReadyBody(
        status="ok",
        parts={part.value: state for part, state in states.items()},
        workers=None
        if workforce is None
        else WorkforceBody(alive=workforce.alive, stalled=workforce.stalled),
        warnings=_warnings(workforce),
    )


def _warnings(workforce: Workforce | None) -> list[str] | None:
    return (workforce.warnings if workforce else None) or None
