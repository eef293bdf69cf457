"""How many requests a user may make in a stretch of time."""

import math
import time

from limits import parse_many
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from app.core.errors import ConfigurationError, TooManyRequests


class RateLimit:
    """A moving window per user and rule, counted in this process's memory.

    `rule` reads like `100/minute` or, several at once, `10/second;1000/hour`. Raises ConfigurationError when it
    cannot be understood.
    """

    def __init__(self, rule: str) -> None:
        try:
            self._items = parse_many(rule)
            usable = all(item.amount > 0 and item.get_expiry() > 0 for item in self._items)
        except (ValueError, TypeError) as error:
            raise _not_understood(rule) from error
        if not usable:
            raise _not_understood(rule)
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def spend(self, user_id: str) -> None:
        """Count one request of the user. Raises TooManyRequests when there is none left."""
        for item in self._items:
            if not self._limiter.hit(item, user_id):
                stats = self._limiter.get_window_stats(item, user_id)
                wait_seconds = max(1, math.ceil(stats.reset_time - time.time()))
                raise TooManyRequests(
                    f"Too many requests: at most {item} are allowed. Try again in {wait_seconds} s.",
                    retry_after_seconds=wait_seconds,
                )


def _not_understood(rule: str) -> ConfigurationError:
    return ConfigurationError(f"REGEN_RATE_LIMIT is {rule!r}; it must look like 100/minute.")
