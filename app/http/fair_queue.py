"""Places that callers share: none holds them all, and a free one goes to the caller who holds the fewest."""

import asyncio
from collections import Counter, deque


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
