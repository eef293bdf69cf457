"""What routes ask for: the process's resources, the user behind the key, the address clients use."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import Depends, Query, Request
from fastapi.security import APIKeyHeader, HTTPBearer

from app.accounts.key_use import KeyUse
from app.accounts.scopes import Scope
from app.accounts.service import authenticate_key
from app.http.health_checks import Watch
from app.http.rate_limit import RATE_LIMIT_HEADERS, Rule
from app.http.resources import Resources
from app.platform.errors import Forbidden
from app.usage.allowances import Allowance, allowance_of

BEARER = "bearer"
READING_METHODS = ("GET", "HEAD")
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


async def given_user(
    request: Request,
    resources: Annotated[Resources, Depends(resources_of)],
    watch: Annotated[Watch, Depends(watch_of)],
    _bearer: Annotated[object, Depends(_bearer_scheme)],
    _header: Annotated[object, Depends(_header_scheme)],
) -> CurrentUser:
    """The user of the request's key, whatever it may do.

    Runs before a byte of the body is read. Raises Unauthorized without a valid key, and within 5 s
    DatabaseUnavailable, also when the database takes the question and never answers.
    """
    given = given_key(request)

    def authenticate() -> tuple[CurrentUser, datetime | None]:
        with resources.database.read() as session:
            key = authenticate_key(session, key=given, keys=resources.secrets)
            user = CurrentUser(
                id=key.user_id,
                key_id=key.id,
                scopes=frozenset(map(Scope, key.scopes)),
                allowance=allowance_of(key, resources.settings),
            )
            return user, key.last_used_at

    found, last_used_at = await watch.ask_database(authenticate)
    request.state.user_id = found.id  # for the request's line in the log
    key_use: KeyUse = request.app.state.key_use
    key_use.note(found.key_id, last_used_at=last_used_at)
    return found


async def counted_user(
    request: Request,
    user: Annotated[CurrentUser, Depends(given_user)],
    resources: Annotated[Resources, Depends(resources_of)],
) -> CurrentUser:
    """As `given_user`, with one request counted. Raises TooManyRequests when there is none left."""
    # Once, also when the request is asked again on the client's behalf.
    if not hasattr(request.state, RATE_LIMIT_HEADERS):
        spent = await resources.rate_limit.spend(_rules(user))
        setattr(request.state, RATE_LIMIT_HEADERS, spent.headers)
        if spent.refusal is not None:
            raise spent.refusal
    return user


async def current_user(request: Request, user: Annotated[CurrentUser, Depends(counted_user)]) -> CurrentUser:
    """The user of a key that may do what the method is for: look (GET and HEAD), or make and remove (all others).

    Raises Forbidden for another key, and what `given_user` and `counted_user` raise.
    """
    _require(user, Scope.READ if request.method in READING_METHODS else Scope.WRITE)
    return user


async def reader(user: Annotated[CurrentUser, Depends(counted_user)]) -> CurrentUser:
    """As `current_user`, for what only looks, whatever its method."""
    _require(user, Scope.READ)
    return user


async def administrator(
    request: Request,
    user: Annotated[CurrentUser, Depends(given_user)],
    resources: Annotated[Resources, Depends(resources_of)],
) -> CurrentUser:
    """The user of an administrator's key, whose requests are not counted: no limit keeps them from lifting it.

    Raises Forbidden for any other key.
    """
    if Scope.ADMIN not in user.scopes:
        await counted_user(request, user, resources)
        _require(user, Scope.ADMIN)
    return user


def _require(user: CurrentUser, scope: Scope) -> None:
    if scope in user.scopes:
        return
    if scope is Scope.ADMIN:
        raise Forbidden(
            "This needs the key of an administrator, with the scope `admin`: regen keys create --admin."
        )
    raise Forbidden(f"This needs a key with the scope `{scope}`, which this one has not.")


def _rules(user: CurrentUser) -> list[Rule]:
    allowance = user.allowance
    given = [("user", user.id, allowance.requests), ("key", user.key_id, allowance.key_requests)]
    return [
        Rule(policy=policy, who=f"{policy}:{who}", text=text)
        for policy, who, text in given
        if text is not None
    ]


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
ReaderDependency = Annotated[CurrentUser, Depends(reader)]
WatchDependency = Annotated[Watch, Depends(watch_of)]
AdministratorDependency = Annotated[CurrentUser, Depends(administrator)]
PageDependency = Annotated[PageRequest, Depends(page_of)]
PublicUrlDependency = Annotated[str, Depends(public_url)]
