"""What routes ask for: the process's resources, the user behind the key, the address clients use."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPBearer

from app.api.resources import Resources
from app.core.services.accounts import authenticate

BEARER = "bearer"

# They tell OpenAPI how to authenticate; the headers themselves are read below, which errs in our own words.
_bearer_scheme = HTTPBearer(auto_error=False, description="An API key.")
_header_scheme = APIKeyHeader(name="X-API-Key", auto_error=False, description="An API key.")


@dataclass(frozen=True, kw_only=True)
class CurrentUser:
    id: str


def resources_of(request: Request) -> Resources:
    resources: Resources = request.app.state.resources
    return resources


def current_user(
    request: Request,
    resources: Annotated[Resources, Depends(resources_of)],
    _bearer: Annotated[object, Depends(_bearer_scheme)],
    _header: Annotated[object, Depends(_header_scheme)],
) -> CurrentUser:
    """The user of the request's key, with one request of theirs counted.

    Runs before a byte of the body is read. Raises Unauthorized without a valid key, TooManyRequests over the limit.
    """
    with resources.database.read() as session:
        user = authenticate(session, key=given_key(request), keys=resources.secrets)
        found = CurrentUser(id=user.id)
    request.state.user_id = found.id  # for the request's line in the log
    if resources.rate_limit is not None:
        resources.rate_limit.spend(found.id)
    return found


def given_key(request: Request) -> str | None:
    """The key of `Authorization: Bearer`, else that of `X-API-Key`."""
    scheme, _, credentials = request.headers.get("Authorization", "").strip().partition(" ")
    if scheme.lower() == BEARER and credentials.strip():
        return credentials.strip()
    return request.headers.get("X-API-Key", "").strip() or None


def public_url(request: Request, resources: Annotated[Resources, Depends(resources_of)]) -> str:
    """Where clients reach the API, without a slash at the end."""
    return (resources.settings.public_url or str(request.base_url)).rstrip("/")


ResourcesDependency = Annotated[Resources, Depends(resources_of)]
UserDependency = Annotated[CurrentUser, Depends(current_user)]
PublicUrlDependency = Annotated[str, Depends(public_url)]
