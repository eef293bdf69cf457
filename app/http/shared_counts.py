"""Counts of requests that several API processes share, in the Redis or Valkey server of the settings."""

import asyncio
import time
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import structlog
from limits import RateLimitItem
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from app.http.rate_limit import Hit

# No request waits longer for its count.
PATIENCE_SECONDS = 0.25
# While the server is away, one request in so many seconds finds out whether it is back.
REST_SECONDS = 5.0
MOST_CONNECTIONS = 32
KEY_PREFIX = "regen.requests"

log = structlog.get_logger(__name__)


class SharedCounts:
    """See Counts. It delays nobody for long: a server that is away is left alone for a while."""

    def __init__(self, broker_url: str) -> None:
        """Connects to nothing yet."""
        self._pool = ConnectionPool.from_url(
            _redis_url(broker_url),
            max_connections=MOST_CONNECTIONS,
            socket_timeout=PATIENCE_SECONDS,
            socket_connect_timeout=PATIENCE_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        # Its annotations leave out what its documentation names.
        options: dict[str, Any] = {"connection_pool": self._pool}
        storage = RedisStorage("async+redis://", implementation="redispy", key_prefix=KEY_PREFIX, **options)
        self._limiter = MovingWindowRateLimiter(storage)
        self._rests_until: float | None = None

    async def hit(self, item: RateLimitItem, who: str) -> Hit | None:
        """None when the server does not tell."""
        was_away = self._rests_until is not None
        if self._rests_until is not None:
            if time.monotonic() < self._rests_until:
                return None
            # This one asks; the others go on without it.
            self._rests_until = time.monotonic() + REST_SECONDS
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                is_granted = await self._limiter.hit(item, who)
                stats = await self._limiter.get_window_stats(item, who)
        except (RedisError, OSError, TimeoutError) as error:
            self._rests_until = time.monotonic() + REST_SECONDS
            if not was_away:
                log.warning("requests_counted_apart", error=f"{type(error).__name__}: {error}")
            return None
        self._rests_until = None
        if was_away:
            log.info("requests_counted_together")
        return Hit(is_granted=is_granted, remaining=stats.remaining, reset_at=stats.reset_time)

    async def close(self) -> None:
        await self._pool.disconnect()


def _redis_url(broker_url: str) -> str:
    """The address as the Redis client writes it; Celery's own words for sockets and certificates differ."""
    parts = urlsplit(broker_url)
    query = dict(parse_qsl(parts.query))
    if "ssl_cert_reqs" in query:
        query["ssl_cert_reqs"] = query["ssl_cert_reqs"].removeprefix("CERT_").lower()
    if parts.scheme == "redis+socket":
        return f"unix://{parts.netloc}{parts.path}?db={query.get('virtual_host', '0')}"
    return parts._replace(query=urlencode(query)).geturl()
