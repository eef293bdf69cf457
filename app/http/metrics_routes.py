"""What Prometheus reads."""

import asyncio
import hmac
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.responses import Response

from app.http.dependencies import HealthChecksDependency
from app.http.metrics import HttpMetrics, MeasurementsCollector, exposition
from app.http.resources import Resources
from app.platform.errors import Unauthorized

router = APIRouter()

Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]


async def may_scrape(request: Request, bearer: Bearer) -> None:
    """Raises Unauthorized when a token is set and the request has another one or none."""
    resources: Resources = request.app.state.resources
    token = resources.settings.metrics_token
    if token is None:
        return
    given = bearer.credentials if bearer else ""
    # Headers arrive as Latin-1, whatever their bytes meant.
    if not hmac.compare_digest(given.encode("latin-1"), token.get_secret_value().encode()):
        raise Unauthorized("A valid metrics token is required.")


@router.get("/metrics", include_in_schema=False, dependencies=[Depends(may_scrape)])
async def read_metrics(request: Request, checks: HealthChecksDependency) -> Response:
    """Answers 200 within 5 s also when database or broker are away, with what is known."""
    metrics: HttpMetrics = request.app.state.metrics
    parts, figures = await asyncio.gather(checks.parts(), checks.figures())
    content = exposition(metrics, MeasurementsCollector(parts=parts, figures=figures))
    return Response(content, media_type=CONTENT_TYPE_PLAIN_0_0_4)
