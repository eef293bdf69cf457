"""Ids and times that are the same for the same requests in the same order.

Each request, and each unit of work, is a separate scope: its ids and times do not depend on other threads.
The n-th request, from 0 on, has one moment: the start plus n seconds.
"""

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.platform import clock
from app.platform.secrets import ID_ALPHABET, ID_LENGTH

REQUEST_STEP = timedelta(seconds=1)


@dataclass(kw_only=True)
class _Scope:
    """`base` is its moment; None for the machine's time."""

    name: str
    base: datetime | None
    ids: int = 0


_current: ContextVar[_Scope | None] = ContextVar("mock_scope", default=None)


class Repeatable:
    """The source of `new_id` and of `clock.now` in a mock, and of its database's clock.

    `run` distinguishes the ids of several starts on the same data: 0 for the first start.
    """

    def __init__(self, *, seed: int, start: datetime | None) -> None:
        self._lock = threading.Lock()
        self.run = 0
        self.restart(seed=seed, start=start)

    def restart(self, *, seed: int, start: datetime | None) -> None:
        """Forgets all requests and ids."""
        with self._lock:
            self.run = 0
            self.seed = seed
            self.start = start
            self._moved = timedelta()
            self._requests = 0
            self._latest = start
            self._beside = _Scope(name="beside", base=start)

    def new_id(self) -> str:
        with self._lock:
            scope = _current.get() or self._beside
            number, scope.ids = scope.ids, scope.ids + 1
            text = f"{self.seed}/{self.run}/{scope.name}/{number}"
        digest = int.from_bytes(hashlib.sha256(text.encode()).digest())
        letters = []
        for _place in range(ID_LENGTH):
            digest, place = divmod(digest, len(ID_ALPHABET))
            letters.append(ID_ALPHABET[place])
        return "".join(letters)

    def now(self) -> datetime:
        with self._lock:
            scope = _current.get()
            if self._latest is None:
                return clock.system_now() + self._moved
            # Threads outside all scopes are never behind the times given to requests.
            if scope is None or scope.base is None:
                return self._latest
            self._latest = max(self._latest, scope.base)
            return scope.base

    def seconds(self) -> float:
        """The same in seconds since the epoch."""
        return self.now().timestamp()

    def latest(self) -> datetime:
        """The latest moment returned; it never goes back."""
        with self._lock:
            return clock.system_now() + self._moved if self._latest is None else self._latest

    def advance(self, by: timedelta) -> None:
        """Moves the clock forward, from the next request on."""
        with self._lock:
            self._moved += by
            if self.start is not None and self._latest is not None:
                self.start += by
                self._latest += by

    def monotonic(self) -> float:
        """Seconds of the machine's monotonic clock, and those by which this one was moved."""
        return time.monotonic() + self._moved.total_seconds()

    @contextmanager
    def request(self) -> Iterator[None]:
        """The scope of the next request."""
        with self._lock:
            number, self._requests = self._requests, self._requests + 1
            base = None if self.start is None else self.start + number * REQUEST_STEP
            if base is not None and self._latest is not None:
                self._latest = max(self._latest, base)
        with _within(_Scope(name=f"request {number}", base=base)):
            yield

    @contextmanager
    def scope(self, name: str, *, at: datetime) -> Iterator[None]:
        """The scope of work outside of any request, at that moment. Names must be unique."""
        with _within(_Scope(name=name, base=None if self.start is None else at)):
            yield


@contextmanager
def _within(scope: _Scope) -> Iterator[None]:
    token = _current.set(scope)
    try:
        yield
    finally:
        _current.reset(token)
