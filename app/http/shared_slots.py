"""Slots of a bounded pool that users share, so that one user's work does not delay others', and work that ends when its
client disconnects."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import anyio
from anyio import CapacityLimiter, to_thread
from starlette.requests import ClientDisconnect, Request

from app.platform.errors import TooManyRequests, Unavailable


class FairQueue:
    """At most `total` places, `per_caller` of them held by one caller; for one event loop.

    Among waiting callers who hold as few, each gets one place in turn; a caller's own come first in, first out.
    """

    def __init__(self, *, total: int, per_caller: int) -> None:
        self._total = total
        self._per_caller = per_caller
        self._held: Counter[str] = Counter()
        self._all_held = 0
        # Callers in the order of their turns.
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    def take(self, caller: str) -> bool:
        """Takes a place, if one is free for the caller."""
        if self._all_held >= self._total or self._held[caller] >= self._per_caller:
            return False
        self._held[caller] += 1
        self._all_held += 1
        return True

    def number_waiting(self, caller: str) -> int:
        return len(self._waiting.get(caller, ()))

    def wait(self, caller: str) -> asyncio.Future[None]:
        """A future that is done once it has a place. `leave` it if the wait ends otherwise."""
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller, deque()).append(place)
        return place

    def leave(self, caller: str, place: asyncio.Future[None]) -> None:
        """Gives up waiting, or gives the place back if it came in the same moment."""
        if (line := self._waiting.get(caller)) is not None and place in line:
            line.remove(place)
            if not line:
                del self._waiting[caller]
        elif not place.cancelled():
            self.give_back(caller)

    def give_back(self, caller: str) -> None:
        self._all_held -= 1
        if self._held[caller] > 1:
            self._held[caller] -= 1
        else:
            del self._held[caller]
        while self._waiting and self._all_held < self._total:
            able = [one for one in self._waiting if self._held[one] < self._per_caller]
            # `min` keeps the first of equals.
            if not able or self._grant(min(able, key=self._held.__getitem__)):
                return

    def _grant(self, caller: str) -> bool:
        """Whether the caller's first still waits, and has a place now."""
        line = self._waiting.pop(caller)
        place = line.popleft()
        if line:
            self._waiting[caller] = line
        if place.done():
            return False
        self._held[caller] += 1
        self._all_held += 1
        place.set_result(None)
        return True


# The longest that a request waits for a slot.
WAIT_SECONDS = 30.0
RETRY_SECONDS = 5

T = TypeVar("T")


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


@dataclass(frozen=True, kw_only=True)
class ClientConnection:
    """The connection of a request whose body has been read."""

    request: Request

    async def run(self, work: Callable[[], T], *, stop: Callable[[], None], threads: CapacityLimiter) -> T:
        """Returns the result of `work`, run in one of `threads`.

        Raises what it raises, and ClientDisconnect when the client disconnects first. Calls `stop`, which
        must not block, when the client disconnects, the caller is cancelled, or the work has ended.
        """
        left = anyio.Event()
        result: T
        fault: Exception | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch, left, stop)
            try:
                result = await to_thread.run_sync(work, abandon_on_cancel=True, limiter=threads)
            except Exception as error:  # raised below, and not as one of a group
                fault = error
            finally:
                stop()
                tasks.cancel_scope.cancel()
        if left.is_set():
            raise ClientDisconnect
        if fault is not None:
            raise fault
        return result

    async def _watch(self, left: anyio.Event, stop: Callable[[], None]) -> None:
        while (await self.request.receive())["type"] != "http.disconnect":
            pass
        left.set()
        stop()
