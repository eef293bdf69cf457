"""For those who watch the process: does it live, can it take work."""

from collections.abc import Callable

import structlog
from fastapi import APIRouter, Response

from app.api.dependencies import ResourcesDependency
from app.api.errors import documented, error_response
from app.api.schemas import HealthBody
from app.core.errors import RegenError
from app.core.queue import check_broker

router = APIRouter()

RETRY_AFTER_SECONDS = 5

log = structlog.get_logger(__name__)


@router.get("/healthz")
def healthz() -> HealthBody:
    """The process lives."""
    return HealthBody(status="ok")


@router.get("/readyz", response_model=HealthBody, responses=documented(503))
def readyz(resources: ResourcesDependency) -> HealthBody | Response:
    """Database, storage and broker can be used. Otherwise 503, with one message for each that cannot."""
    faults = [
        sentence
        for part, check, sentence in (
            ("database", resources.database.check, "The database cannot be reached."),
            ("storage", resources.storage.check, "The storage cannot be used."),
            ("broker", lambda: check_broker(resources.celery), "The broker cannot be reached."),
        )
        if not _passes(part, check)
    ]
    if faults:
        return error_response(503, faults, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})
    return HealthBody(status="ok")


def _passes(part: str, check: Callable[[], None]) -> bool:
    try:
        check()
    except RegenError as error:
        log.warning("not_ready", part=part, error=error.message, detail=error.detail)
        return False
    return True
