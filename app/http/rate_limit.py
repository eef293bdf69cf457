"""How many requests may be made with a key in a stretch of time."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Protocol, Self

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.platform.errors import ConfigurationError, TooManyRequests
from app.platform.rate_rules import parse_rule
from app.platform.settings import Settings

if TYPE_CHECKING:
    from limits import RateLimitItem
    from limits.strategies import MovingWindowRateLimiter

# Where a request's state holds what its answer shall say.
RATE_LIMIT_HEADERS = "rate_limit_headers"

_items = lru_cache(maxsize=1024)(parse_rule)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """`text` is like `100/minute`, `who` what is counted apart; `policy` is its name in the headers."""

    policy: str
    who: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What counting a request came to. `refusal` is to be raised, if there is one."""

    headers: Mapping[str, str]
    refusal: TooManyRequests | None = None


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A request that was counted, or refused. At `reset_at`, in seconds since the epoch, one more is `remaining`."""

    is_granted: bool
    remaining: int
    reset_at: float


class Counts(Protocol):
    """A place where several processes count together."""

    async def hit(self, item: RateLimitItem, who: str) -> Hit | None:
        """None when it does not tell. Never raises."""

    async def close(self) -> None: ...


class RateLimit:
    """Moving windows. They are counted where all API processes see them, if there is such a place and it answers; else
    in this process's memory."""

    def __init__(self, shared: Counts | None = None) -> None:
        self._shared = shared

    @cached_property
    def _own(self) -> MovingWindowRateLimiter:
        # Loading it takes a while, and most servers count nothing.
        from limits.storage import MemoryStorage
        from limits.strategies import MovingWindowRateLimiter

        return MovingWindowRateLimiter(MemoryStorage())

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """With a broker of the operator's own counts are shared there; the embedded one serves a single process.

        Raises ConfigurationError for a rule that cannot be understood.
        """
        if settings.rate_limit is not None:
            try:
                parse_rule(settings.rate_limit)
            except ValueError as error:
                raise ConfigurationError(f"REGEN_RATE_LIMIT: {error}.") from error
        if settings.broker_url is None:
            return cls()
        # Loading the client takes a while.
        from app.http.shared_counts import SharedCounts

        return cls(SharedCounts(settings.resolved_broker_url))

    async def spend(self, rules: Sequence[Rule]) -> Spent:
        """Count one request against each of the rules, up to the first that has none left."""
        hits: list[tuple[str, RateLimitItem, Hit]] = []
        for rule in rules:
            for number, item in enumerate(_items(rule.text), start=1):
                hit = await self._hit(item, rule.who)
                hits.append((rule.policy if number == 1 else f"{rule.policy}-{number}", item, hit))
                if not hit.is_granted:
                    return Spent(headers=_headers(hits), refusal=_refusal(item, hit))
        return Spent(headers=_headers(hits))

    async def _hit(self, item: RateLimitItem, who: str) -> Hit:
        hit = None if self._shared is None else await self._shared.hit(item, who)
        if hit is not None:
            return hit
        is_granted = self._own.hit(item, who)
        stats = self._own.get_window_stats(item, who)
        return Hit(is_granted=is_granted, remaining=stats.remaining, reset_at=stats.reset_time)

    async def close(self) -> None:
        if self._shared is not None:
            await self._shared.close()


class RateLimitHeaders:
    """Puts what the request's counting came to on its answer, whether that is an error or not."""

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


def _headers(hits: Sequence[tuple[str, RateLimitItem, Hit]]) -> dict[str, str]:
    """As draft-ietf-httpapi-ratelimit-headers-10 has them: `q` requests in each `w` seconds; `r` are left, and in `t`
    seconds there will be more."""
    if not hits:
        return {}
    policies = [f'"{name}";q={item.amount};w={item.get_expiry()}' for name, item, _hit in hits]
    standings = [f'"{name}";r={hit.remaining};t={_seconds_until(hit)}' for name, _item, hit in hits]
    return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(standings)}


def _refusal(item: RateLimitItem, hit: Hit) -> TooManyRequests:
    seconds = _seconds_until(hit)
    return TooManyRequests(
        f"Too many requests: at most {item} are allowed. Try again in {seconds} s.",
        retry_after_seconds=seconds,
    )


def _seconds_until(hit: Hit) -> int:
    return max(1, math.ceil(hit.reset_at - time.time()))
