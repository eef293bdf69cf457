"""What routes ask for: the process's resources, the user behind the key, the address clients use."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Query, Request
from fastapi.security import APIKeyHeader, HTTPBearer

from app.api.resources import Resources
from app.api.watch import Watch
from app.core.errors import Forbidden
from app.core.scopes import Scope
from app.core.services.accounts import authenticate_key
from app.core.services.allowances import Allowance

BEARER = "bearer"
MOST_A_PAGE = 100

# They tell OpenAPI how to authenticate; the headers themselves are read below, which errs in our own words.
_bearer_scheme = HTTPBearer(auto_error=False, description="An API key.")
_header_scheme = APIKeyHeader(name="X-API-Key", auto_error=False, description="An API key.")


@dataclass(frozen=True, kw_only=True)
class CurrentUser:
    """The user behind the key that was given, what that key may do, and within which limits."""

    id: str
    key_id: str
    scopes: frozenset[Scope]
    allowance: Allowance


async def resources_of(request: Request) -> Resources:
    resources: Resources = request.app.state.resources
    return resources


async def watch_of(request: Request) -> Watch:
    watch: Watch = request.app.state.watch
    return watch


async def current_user(
    request: Request,
    resources: Annotated[Resources, Depends(resources_of)],
    watch: Annotated[Watch, Depends(watch_of)],
    _bearer: Annotated[object, Depends(_bearer_scheme)],
    _header: Annotated[object, Depends(_header_scheme)],
) -> CurrentUser:
    """The user of the request's key, with one request of theirs counted.

    Runs before a byte of the body is read. Raises Unauthorized without a valid key, TooManyRequests over the limit,
    and within 5 s DatabaseUnavailable, also when the database takes the question and never answers.
    """
    given = given_key(request)

    def authenticate() -> CurrentUser:
        with resources.database.read() as session:
            key = authenticate_key(session, key=given, keys=resources.secrets)
            return CurrentUser(
                id=key.user_id,
                key_id=key.id,
                scopes=frozenset(map(Scope, key.scopes)),
                allowance=Allowance(media=resources.limits),
            )

    found = await watch.ask_database(authenticate)
    request.state.user_id = found.id  # for the request's line in the log
    if resources.rate_limit is not None:
        resources.rate_limit.spend(found.id)
    return found


async def administrator(user: Annotated[CurrentUser, Depends(current_user)]) -> CurrentUser:
    """The user of an administrator's key. Raises Forbidden for any other key."""
    if Scope.ADMIN not in user.scopes:
        raise Forbidden("This needs the key of an administrator: regen keys create --admin.")
    return user


def given_key(request: Request) -> str | None:
    """The key of `Authorization: Bearer`, else that of `X-API-Key`."""
    scheme, _, credentials = request.headers.get("Authorization", "").strip().partition(" ")
    if scheme.lower() == BEARER and credentials.strip():
        return credentials.strip()
    return request.headers.get("X-API-Key", "").strip() or None


async def public_url(request: Request, resources: Annotated[Resources, Depends(resources_of)]) -> str:
    """Where clients reach the API, without a slash at the end."""
    return (resources.settings.public_url or str(request.base_url)).rstrip("/")


@dataclass(frozen=True, kw_only=True)
class PageRequest:
    """Which page of a list is asked for."""

    limit: int
    cursor: str | None


async def page_of(
    limit: Annotated[int, Query(ge=1, le=MOST_A_PAGE, description="How many, at most.")] = 20,
    cursor: Annotated[
        str | None,
        Query(max_length=64, description="`nextCursor` of the page before; left out for the first."),
    ] = None,
) -> PageRequest:
    return PageRequest(limit=limit, cursor=cursor)


ResourcesDependency = Annotated[Resources, Depends(resources_of)]
UserDependency = Annotated[CurrentUser, Depends(current_user)]
WatchDependency = Annotated[Watch, Depends(watch_of)]
AdministratorDependency = Annotated[CurrentUser, Depends(administrator)]
PageDependency = Annotated[PageRequest, Depends(page_of)]
PublicUrlDependency = Annotated[str, Depends(public_url)]
