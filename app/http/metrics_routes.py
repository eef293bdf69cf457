"""The route that Prometheus reads."""

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
from app.platform.errors import Forbidden, Unauthorized
from app.platform.public_addresses import is_loopback

FORWARDING_HEADERS = frozenset(
    {"forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"}
)
FOR_THIS_MACHINE = (
    "The metrics are for programs on the server's own machine. To read them from elsewhere set REGEN_METRICS_TOKEN "
    "and send that token."
)

router = APIRouter()

Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]


async def may_scrape(request: Request, bearer: Bearer) -> None:
    """Raises Unauthorized if a token is set and the request lacks it.

    Without a token, raises Forbidden for other machines unless the settings open the metrics to them.
    """
    resources: Resources = request.app.state.resources
    settings = resources.settings
    token = settings.metrics_token
    if token is None:
        if not settings.metrics_open and not _is_from_this_machine(request):
            raise Forbidden(FOR_THIS_MACHINE)
        return
    given = bearer.credentials if bearer else ""
    # Headers arrive as Latin-1, whatever their bytes meant.
    if not hmac.compare_digest(given.encode("latin-1"), token.get_secret_value().encode()):
        raise Unauthorized("A valid metrics token is required.")


def _is_from_this_machine(request: Request) -> bool:
    """Whether the request comes from a program of this machine itself, not through a proxy or a browser."""
    hosts = [request.client.host if request.client else "", request.url.hostname or ""]
    return FORWARDING_HEADERS.isdisjoint(request.headers.keys()) and all(map(is_loopback, hosts))


@router.get("/metrics", include_in_schema=False, dependencies=[Depends(may_scrape)])
async def read_metrics(request: Request, checks: HealthChecksDependency) -> Response:
    """Answers 200 within 5 s with the known metrics, even if database or broker are unavailable."""
    metrics: HttpMetrics = request.app.state.metrics
    resources: Resources = request.app.state.resources
    parts, figures = await asyncio.gather(checks.parts(), checks.figures())
    content = exposition(
        metrics, MeasurementsCollector(parts=parts, figures=figures, spool=resources.spool_space)
    )
    return Response(content, media_type=CONTENT_TYPE_PLAIN_0_0_4)
