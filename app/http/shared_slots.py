"""Slots of a bounded pool that users share, so that one user's work does not delay others'."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
from anyio import CapacityLimiter

from app.platform.errors import TooManyRequests, Unavailable

# The longest that a request waits for a slot.
WAIT_SECONDS = 30.0
RETRY_SECONDS = 5


@dataclass(eq=False, kw_only=True)
class _Waiting:
    user_id: str
    granted: anyio.Event = field(default_factory=anyio.Event)


class SharedSlots:
    """At most `total` slots, of which one user holds at most `per_user`; for one event loop.

    A free slot goes to the waiting user who holds the fewest, and among equals to the one that waits longest.
    `threads` limits the work in the slots to its own threads: it takes none from other requests.
    """

    def __init__(self, *, total: int, per_user: int, most_waiting_per_user: int, busy: str) -> None:
        """`busy`: the sentence for a request that gets no slot."""
        self.threads = CapacityLimiter(total)
        self._total = total
        self._per_user = per_user
        self._most_waiting_per_user = most_waiting_per_user
        self._busy = busy
        self._held: Counter[str] = Counter()
        self._waiting: list[_Waiting] = []

    @asynccontextmanager
    async def slot(self, user_id: str) -> AsyncIterator[None]:
        """Holds one slot for the user.

        Raises TooManyRequests if too many requests of the user wait already, and Unavailable if no slot is
        free within WAIT_SECONDS.
        """
        await self._acquire(user_id)
        try:
            yield
        finally:
            self._release(user_id)

    async def _acquire(self, user_id: str) -> None:
        if self._may_hold(user_id):
            self._held[user_id] += 1
            return
        if sum(one.user_id == user_id for one in self._waiting) >= self._most_waiting_per_user:
            raise TooManyRequests(self._busy, retry_after_seconds=RETRY_SECONDS)
        one = _Waiting(user_id=user_id)
        self._waiting.append(one)
        try:
            with anyio.fail_after(WAIT_SECONDS):
                await one.granted.wait()
        except BaseException as error:
            if one in self._waiting:
                self._waiting.remove(one)
            else:
                self._release(user_id)
            if isinstance(error, TimeoutError):
                raise Unavailable(self._busy, retry_after_seconds=RETRY_SECONDS) from error
            raise

    def _may_hold(self, user_id: str) -> bool:
        return self._held.total() < self._total and self._held[user_id] < self._per_user

    def _release(self, user_id: str) -> None:
        self._held[user_id] -= 1
        if not self._held[user_id]:
            del self._held[user_id]
        able = [one for one in self._waiting if self._may_hold(one.user_id)]
        if able:
            # `min` keeps the first of equals: the one that waits longest.
            one = min(able, key=lambda waiting: self._held[waiting.user_id])
            self._waiting.remove(one)
            self._held[one.user_id] += 1
            one.granted.set()
