"""Access to the API: a request's key, its user and the key's permissions, and the address that the client uses."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ParamSpec, TypeVar

from anyio import from_thread
from starlette.datastructures import URL
from starlette.requests import Request
from starlette.types import Scope as AsgiScope

from app.accounts.key_use import KeyUse
from app.accounts.queries import StoredKey
from app.accounts.scopes import Scope
from app.accounts.service import authenticate
from app.http.health_checks import HealthChecks
from app.http.rate_limit import RATE_LIMIT_HEADERS, RateLimitDecision, RateLimitPolicy
from app.http.resources import Resources
from app.platform.database import ColumnReader
from app.platform.errors import Forbidden, InvalidRequest, Unauthorized
from app.platform.public_addresses import is_loopback
from app.platform.quoting import quoted
from app.platform.settings import Settings
from app.usage.allowances import Requester, allowance_of

BEARER = "bearer"
LONGEST_SCHEME = 10  # less than any key's
NOT_IN_KEYS = re.compile(r"""[\s"'<>]""")
NO_KEY = "A valid API key is required."
# Query parameters and headers in which other APIs take a key.
KEY_NAMES = frozenset(
    {"access_token", "api-key", "api_key", "apikey", "key", "token", "x-api-token", "x-auth-token"}
)

# In the setting of allowed hosts.
ANY_HOST = "*"

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class CurrentUser(Requester):
    """The user of the request's key, with the key's scopes."""

    key_id: str
    scopes: frozenset[Scope]


class Access:
    """One request's access. `run` runs in the event loop; the methods that read the database run in the thread that
    `run` provides, so that a route can check the key and answer from one transaction.
    """

    def __init__(self, request: Request) -> None:
        self.resources: Resources = request.app.state.resources
        self._request = request
        self._key: StoredKey | None = None
        self._refused: str | None = None

    @property
    def user_id(self) -> str:
        """The user of the key, after `require`."""
        assert self._key is not None
        return self._key.user_id

    @property
    def base_url(self) -> str:
        """The start of links in the answer. Raises InvalidRequest, see `base_url_of`."""
        return base_url_of(self._request, self.resources.settings)

    async def run(self, work: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """Returns the result of `work`, run in a thread, which must only read.

        Raises what `work` raises, and within 5 s DatabaseUnavailable, even if the database accepts a
        statement and never answers.
        """
        checks: HealthChecks = self._request.app.state.health_checks
        try:
            return await checks.ask_database(partial(work, *arguments, **options))
        finally:
            key_use: KeyUse = self._request.app.state.key_use
            if self._key is not None:
                self._request.state.user_id = self._key.user_id  # for the request's line in the log
                key_use.note(self._key.id, last_used_at=self._key.last_used_at)
            elif self._refused is not None:
                key_use.note_refused(self._refused)

    def require(self, reader: ColumnReader, scope: Scope) -> CurrentUser:
        """Returns the user of a key with that scope, and counts the request against the rate limits.

        Raises Unauthorized without a valid key, TooManyRequests when no request is left, Forbidden without the scope.
        """
        user = self._authenticate(reader)
        self._count(user)
        _require(user, scope)
        return user

    def require_administrator(self, reader: ColumnReader) -> CurrentUser:
        """Returns the user of an administrator's key, whose requests are not counted, so that no limit
        prevents lifting it. Raises as `require` does.
        """
        user = self._authenticate(reader)
        if Scope.ADMIN not in user.scopes:
            self._count(user)
            _require(user, Scope.ADMIN)
        return user

    def _authenticate(self, reader: ColumnReader) -> CurrentUser:
        given = given_key(self._request)
        if given is None or NOT_IN_KEYS.search(given):
            raise Unauthorized(key_advice(self._request))
        try:
            key = authenticate(reader, key=given, keys=self.resources.secrets)
        except Unauthorized:
            self._refused = given
            raise
        self._key = key
        return CurrentUser(
            id=key.user_id,
            key_id=key.id,
            scopes=frozenset(map(Scope, key.scopes)),
            allowance=allowance_of(self.resources.settings, user=key.user_limits, key=key.limits),
        )

    def _count(self, user: CurrentUser) -> None:
        # Once, even if the request is retried on the client's behalf.
        if hasattr(self._request.state, RATE_LIMIT_HEADERS):
            return
        rules = _rules(user)
        spent = (
            from_thread.run(self.resources.rate_limit.spend, rules)
            if rules
            else RateLimitDecision(headers={})
        )
        setattr(self._request.state, RATE_LIMIT_HEADERS, spent.headers)
        if spent.refusal is not None:
            raise spent.refusal


def given_key(request: Request) -> str | None:
    """The key of `Authorization: Bearer`, otherwise that of `X-API-Key`."""
    scheme, _, credentials = request.headers.get("Authorization", "").strip().partition(" ")
    if scheme.lower() == BEARER and credentials.strip():
        return credentials.strip()
    return request.headers.get("X-API-Key", "").strip() or None


def key_advice(request: Request) -> str:
    """The message for a request whose key is misplaced or malformed. Never repeats any part of a key."""
    scheme, _, credentials = request.headers.get("Authorization", "").strip().partition(" ")
    if given_key(request) is not None:
        found = (
            "The value sent as a key is more than a key: leave out quotes, brackets and a second `Bearer`."
        )
    elif scheme.lower() == BEARER:
        found = "The header `Authorization` has no key after `Bearer`: is a variable empty?"
    elif scheme and not credentials:
        found = "The header `Authorization` lacks the word `Bearer` before the key."
    elif scheme:
        found = f"The header `Authorization` begins with {quoted(scheme[:LONGEST_SCHEME])}, not `Bearer`."
    elif misplaced := sorted(KEY_NAMES & {*request.query_params, *request.headers}):
        found = f"A key in `{misplaced[0]}` is not read."
    else:
        return NO_KEY
    return f"{NO_KEY} {found} Send `Authorization: Bearer <API key>`."


def _require(user: CurrentUser, scope: Scope) -> None:
    if scope in user.scopes:
        return
    if scope is Scope.ADMIN:
        raise Forbidden(
            "This needs the key of an administrator, with the scope `admin`: regen keys create --admin."
        )
    raise Forbidden(f"This needs a key with the scope `{scope}`, which this one lacks.")


def _rules(user: CurrentUser) -> list[RateLimitPolicy]:
    allowance = user.allowance
    given = [("user", user.id, allowance.requests), ("key", user.key_id, allowance.key_requests)]
    return [
        RateLimitPolicy(policy=policy, who=f"{policy}:{who}", text=text)
        for policy, who, text in given
        if text is not None
    ]


def base_url_of(request: Request, settings: Settings) -> str:
    """The start of links in the answer, without a slash at the end; without a public URL, the request's own address.

    On a connection from elsewhere, raises InvalidRequest for a `Host` that is neither a name of this machine
    nor allowed: otherwise the client would choose where links lead.
    """
    if settings.public_url is not None:
        return settings.public_url.rstrip("/")
    if not _is_trusted(request.base_url, request.scope, settings):
        raise InvalidRequest(
            f"This server does not know that it is called {request.base_url.hostname!r}. "
            "Its operator can set REGEN_PUBLIC_URL, or list the name in REGEN_ALLOWED_HOSTS."
        )
    return str(request.base_url).rstrip("/")


def _is_trusted(url: URL, scope: AsgiScope, settings: Settings) -> bool:
    own_address = (scope.get("server") or ("",))[0]
    if is_loopback(own_address):
        return True
    name = (url.hostname or "").lower()
    return is_loopback(name) or name == own_address or not {name, ANY_HOST}.isdisjoint(settings.allowed_hosts)
