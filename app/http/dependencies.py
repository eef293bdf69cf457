"""Dependencies of routes: resources, the key's user, the address that clients use, the Idempotency-Key, pages."""

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import Annotated

from anyio import to_thread
from fastapi import Depends, Header, Query, Request, Response
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.requests import HTTPConnection

from app.accounts.idempotency import IdempotentRequest
from app.accounts.scopes import Scope
from app.http.access import Access, CurrentUser, base_url_of
from app.http.health_checks import HealthChecks, Readiness
from app.http.resources import Resources
from app.platform.errors import InvalidRequest
from models.catalog import Engine

READING_METHODS = ("GET", "HEAD")
MOST_A_PAGE = 100


# These only describe authentication in OpenAPI. `Access` reads the headers and raises the errors.
class _BearerScheme(HTTPBearer):
    async def __call__(self, request: HTTPConnection) -> None:
        return None


class _HeaderScheme(APIKeyHeader):
    async def __call__(self, request: HTTPConnection) -> None:
        return None


_bearer_scheme = _BearerScheme(scheme_name="HTTPBearer", description="An API key.")
_header_scheme = _HeaderScheme(name="X-API-Key", scheme_name="APIKeyHeader", description="An API key.")


async def resources_of(request: Request) -> Resources:
    resources: Resources = request.app.state.resources
    return resources


async def health_checks_of(request: Request) -> HealthChecks:
    checks: HealthChecks = request.app.state.health_checks
    return checks


async def engines_of(request: Request) -> Mapping[str, Engine]:
    """The engines of this moment, by id."""
    return await to_thread.run_sync(request.app.state.resources.engines.all)


async def readiness_of(request: Request) -> Readiness:
    readiness: Readiness = request.app.state.readiness
    return readiness


async def access_of(
    request: Request,
    _bearer: Annotated[object, Depends(_bearer_scheme)],
    _header: Annotated[object, Depends(_header_scheme)],
) -> Access:
    """For a route that checks the key in its own transaction. Checks nothing itself."""
    return Access(request)


async def current_user(
    request: Request, access: Annotated[Access, Depends(access_of)]
) -> AsyncIterator[CurrentUser]:
    """The user of a key with the method's scope: read (GET and HEAD) or write (all others).

    Runs before a byte of the body is read. Raises Forbidden for other keys, and what `Access` raises. A route that
    runs in a thread from its start to its end has its turn among all such requests of all users, until its answer is
    made.
    """
    scope = Scope.READ if request.method in READING_METHODS else Scope.WRITE
    user = await access.run(_user_with, access, scope)
    if iscoroutinefunction(request.scope["endpoint"]):
        yield user
    else:
        async with access.resources.turns.slot(user.id):
            yield user


async def reader(access: Annotated[Access, Depends(access_of)]) -> CurrentUser:
    """As `current_user`, for routes that only read, whatever their method, without a turn."""
    return await access.run(_user_with, access, Scope.READ)


async def administrator(access: Annotated[Access, Depends(access_of)]) -> CurrentUser:
    """The user of an administrator's key. Raises Forbidden for any other key."""
    return await access.run(_administrator, access)


def _user_with(access: Access, scope: Scope) -> CurrentUser:
    with access.resources.database.read_columns() as reader:
        return access.require(reader, scope)


def _administrator(access: Access) -> CurrentUser:
    with access.resources.database.read_columns() as reader:
        return access.require_administrator(reader)


async def public_url(request: Request) -> str:
    """The address at which clients reach the API, without a slash at the end. Raises InvalidRequest, see
    `base_url_of`."""
    resources: Resources = request.app.state.resources
    return base_url_of(request, resources.settings)


@dataclass(frozen=True, kw_only=True)
class PageRequest:
    """The requested page of a list."""

    limit: int
    cursor: str | None


async def page_of(
    limit: Annotated[int, Query(ge=1, le=MOST_A_PAGE, description="How many, at most.")] = 20,
    cursor: Annotated[
        str | None,
        Query(max_length=64, description="`nextCursor` of the previous page; left out for the first."),
    ] = None,
) -> PageRequest:
    return PageRequest(limit=limit, cursor=cursor)


AccessDependency = Annotated[Access, Depends(access_of)]
ResourcesDependency = Annotated[Resources, Depends(resources_of)]
EnginesDependency = Annotated[Mapping[str, Engine], Depends(engines_of)]
UserDependency = Annotated[CurrentUser, Depends(current_user, scope="function")]
ReaderDependency = Annotated[CurrentUser, Depends(reader)]
HealthChecksDependency = Annotated[HealthChecks, Depends(health_checks_of)]
ReadinessDependency = Annotated[Readiness, Depends(readiness_of)]
AdministratorDependency = Annotated[CurrentUser, Depends(administrator)]
PageDependency = Annotated[PageRequest, Depends(page_of)]
PublicUrlDependency = Annotated[str, Depends(public_url)]


IDEMPOTENCY_KEY = "Idempotency-Key"

LONGEST_KEY = 255
PRINTABLE = r"[!-~]([ -~]*[!-~])?"


async def idempotent_request(
    request: Request,
    response: Response,
    access: AccessDependency,
    key: Annotated[
        str | None,
        Header(
            alias=IDEMPOTENCY_KEY,
            description="Any text of your choice, new for each thing to be made. The same request with the same key "
            "makes nothing new and answers with the first result; a different request with it is refused. Remembered "
            "for a week.",
            max_length=LONGEST_KEY,
            json_schema_extra={"pattern": f"^{PRINTABLE}$", "minLength": 1},
            examples=["order-17"],
        ),
    ] = None,
) -> IdempotentRequest:
    """The request, identified by its address: the route adds its other identifying values to `content`.

    A route declares it after the dependency that requires the user's key. The encoding of a body does not
    count. Raises InvalidRequest for a key that is empty or not printable ASCII.
    """
    if key is not None and not re.fullmatch(PRINTABLE, key):
        raise InvalidRequest("`Idempotency-Key` must be of printable ASCII characters, and not empty.")
    return IdempotentRequest(
        user_id=access.user_id, key=key, content=[request.url.path], headers=response.headers
    )


IdempotencyDependency = Annotated[IdempotentRequest, Depends(idempotent_request)]
