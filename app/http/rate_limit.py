"""Rate limits: how many requests a user and a key may make in a moving window."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qsl, urlencode, urlsplit

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.platform.errors import ConfigurationError, TooManyRequests
from app.platform.rate_rules import parse_rule
from app.platform.settings import Settings

if TYPE_CHECKING:
    from limits import RateLimitItem
    from limits.strategies import MovingWindowRateLimiter

# The attribute of a request's state that holds the headers for its answer.
RATE_LIMIT_HEADERS = "rate_limit_headers"

# The longest wait for the shared server's count.
SHARED_TIMEOUT_SECONDS = 0.25
# While the shared server is unavailable, one request in so many seconds tries it again.
SHARED_RETRY_SECONDS = 5.0
MAX_CONNECTIONS = 32
KEY_PREFIX = "regen.requests"

log = structlog.get_logger(__name__)

_items = lru_cache(maxsize=1024)(parse_rule)


@dataclass(frozen=True, kw_only=True)
class RateLimitPolicy:
    """One limit. `policy` is its name in the headers, `who` the counted client, `text` a rule such as
    `100/minute`."""

    policy: str
    who: str
    text: str


@dataclass(frozen=True, kw_only=True)
class RateLimitDecision:
    """The headers for a request's answer, and the error to raise if the request is refused."""

    headers: Mapping[str, str]
    refusal: TooManyRequests | None = None


@dataclass(frozen=True, kw_only=True)
class WindowState:
    """One window after a request. `remaining` requests are left; `reset_at`, in seconds since the epoch, is when the
    next one becomes free."""

    is_granted: bool
    remaining: int
    reset_at: float


class RateLimiter:
    """Moving windows, counted by `shared` if there is one and it answers, otherwise in this process's memory."""

    def __init__(self, shared: SharedRateLimiter | None = None) -> None:
        self._shared = shared

    @cached_property
    def _own(self) -> MovingWindowRateLimiter:
        # Imported here: it loads slowly, and most servers have no limits.
        from limits.storage import MemoryStorage
        from limits.strategies import MovingWindowRateLimiter

        return MovingWindowRateLimiter(MemoryStorage())

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The broker holds the counts that processes share; a single process on one machine needs none.

        Raises ConfigurationError for a rule that cannot be parsed.
        """
        if settings.rate_limit is not None:
            try:
                parse_rule(settings.rate_limit)
            except ValueError as error:
                raise ConfigurationError(f"REGEN_RATE_LIMIT: {error}.") from error
        if settings.broker_url is None and settings.api_processes == 1:
            return cls()
        return cls(SharedRateLimiter(settings.resolved_broker_url))

    async def spend(self, policies: Sequence[RateLimitPolicy]) -> RateLimitDecision:
        """Counts one request against each policy, up to the first that refuses it."""
        hits: list[tuple[str, RateLimitItem, WindowState]] = []
        for policy in policies:
            for number, item in enumerate(_items(policy.text), start=1):
                hit = await self._hit(item, policy.who)
                hits.append((policy.policy if number == 1 else f"{policy.policy}-{number}", item, hit))
                if not hit.is_granted:
                    return RateLimitDecision(headers=_headers(hits), refusal=_refusal(item, hit))
        return RateLimitDecision(headers=_headers(hits))

    async def _hit(self, item: RateLimitItem, who: str) -> WindowState:
        hit = None if self._shared is None else await self._shared.hit(item, who)
        if hit is not None:
            return hit
        is_granted = self._own.hit(item, who)
        stats = self._own.get_window_stats(item, who)
        return WindowState(is_granted=is_granted, remaining=stats.remaining, reset_at=stats.reset_time)

    async def close(self) -> None:
        if self._shared is not None:
            await self._shared.close()


class SharedRateLimiter:
    """Counts in a Redis or Valkey server, where all API processes count together.

    A server that does not answer delays a request by at most SHARED_TIMEOUT_SECONDS and is then not asked for
    SHARED_RETRY_SECONDS.
    """

    def __init__(self, broker_url: str) -> None:
        """Does not connect yet."""
        # Imported here: these clients load slowly, and most servers share no counts.
        from limits.aio.storage import RedisStorage
        from limits.aio.strategies import MovingWindowRateLimiter
        from redis.asyncio import ConnectionPool
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
        from redis.exceptions import RedisError

        self._errors = (RedisError, OSError, TimeoutError)
        self._pool = ConnectionPool.from_url(
            _redis_url(broker_url),
            max_connections=MAX_CONNECTIONS,
            socket_timeout=SHARED_TIMEOUT_SECONDS,
            socket_connect_timeout=SHARED_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        # Its annotations omit what its documentation names.
        options: dict[str, Any] = {"connection_pool": self._pool}
        storage = RedisStorage("async+redis://", implementation="redispy", key_prefix=KEY_PREFIX, **options)
        self._limiter = MovingWindowRateLimiter(storage)
        self._retry_at: float | None = None

    async def hit(self, item: RateLimitItem, who: str) -> WindowState | None:
        """None when the server does not answer. Never raises."""
        was_away = self._retry_at is not None
        if self._retry_at is not None:
            if time.monotonic() < self._retry_at:
                return None
            # This request tries the server; the others continue without it.
            self._retry_at = time.monotonic() + SHARED_RETRY_SECONDS
        try:
            async with asyncio.timeout(SHARED_TIMEOUT_SECONDS):
                is_granted = await self._limiter.hit(item, who)
                stats = await self._limiter.get_window_stats(item, who)
        except self._errors as error:
            self._retry_at = time.monotonic() + SHARED_RETRY_SECONDS
            if not was_away:
                log.warning("requests_counted_apart", error=f"{type(error).__name__}: {error}")
            return None
        self._retry_at = None
        if was_away:
            log.info("requests_counted_together")
        return WindowState(is_granted=is_granted, remaining=stats.remaining, reset_at=stats.reset_time)

    async def close(self) -> None:
        await self._pool.disconnect()


class RateLimitHeaders:
    """Adds the rate limit headers to a request's answer, errors included."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers: Mapping[str, str] = scope.get("state", {}).get(RATE_LIMIT_HEADERS, {})
                more = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
                message = {**message, "headers": [*message.get("headers", ()), *more]}
            await send(message)

        await self.app(scope, receive, send_with_headers)


def _headers(hits: Sequence[tuple[str, RateLimitItem, WindowState]]) -> dict[str, str]:
    """As draft-ietf-httpapi-ratelimit-headers-10 has them: `q` requests in each `w` seconds; `r` are left, and in `t`
    seconds there will be more."""
    if not hits:
        return {}
    policies = [f'"{name}";q={item.amount};w={item.get_expiry()}' for name, item, _hit in hits]
    standings = [f'"{name}";r={hit.remaining};t={_seconds_until(hit)}' for name, _item, hit in hits]
    return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(standings)}


def _refusal(item: RateLimitItem, hit: WindowState) -> TooManyRequests:
    seconds = _seconds_until(hit)
    return TooManyRequests(
        f"Too many requests: at most {item} are allowed. Try again in {seconds} s.",
        retry_after_seconds=seconds,
    )


def _seconds_until(hit: WindowState) -> int:
    return max(1, math.ceil(hit.reset_at - time.time()))


def _redis_url(broker_url: str) -> str:
    """The broker's URL in the Redis client's form; Celery's form differs for sockets and certificates."""
    parts = urlsplit(broker_url)
    query = dict(parse_qsl(parts.query))
    if "ssl_cert_reqs" in query:
        query["ssl_cert_reqs"] = query["ssl_cert_reqs"].removeprefix("CERT_").lower()
    if parts.scheme == "redis+socket":
        return f"unix://{parts.netloc}{parts.path}?db={query.get('virtual_host', '0')}"
    return parts._replace(query=urlencode(query)).geturl()
