"""Slots of a bounded pool that users share, so that one user's work does not delay others'."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio import CapacityLimiter

from app.http.fair_queue import FairQueue
from app.platform.errors import TooManyRequests, Unavailable

# The longest that a request waits for a slot.
WAIT_SECONDS = 30.0
RETRY_SECONDS = 5


class SharedSlots:
    """At most `total` slots, of which one user holds at most `per_user`; for one event loop.

    `threads` limits the work in the slots to its own threads: it takes none from other requests.
    """

    def __init__(self, *, total: int, per_user: int, most_waiting_per_user: int, busy: str) -> None:
        """`busy`: the sentence for a request that gets no slot."""
        self.threads = CapacityLimiter(total)
        self._queue = FairQueue(total=total, per_caller=per_user)
        self._most_waiting_per_user = most_waiting_per_user
        self._busy = busy

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
            self._queue.give_back(user_id)

    async def _acquire(self, user_id: str) -> None:
        if self._queue.take(user_id):
            return
        if self._queue.number_waiting(user_id) >= self._most_waiting_per_user:
            raise TooManyRequests(self._busy, retry_after_seconds=RETRY_SECONDS)
        place = self._queue.wait(user_id)
        try:
            with anyio.fail_after(WAIT_SECONDS):
                await place
        except BaseException as error:
            self._queue.leave(user_id, place)
            if isinstance(error, TimeoutError):
                raise Unavailable(self._busy, retry_after_seconds=RETRY_SECONDS) from error
            raise
