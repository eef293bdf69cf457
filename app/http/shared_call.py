"""A slow call that many requests need at once, made once for all of them."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(kw_only=True)
class _Call(Generic[T]):
    answer: Future[T] = field(default_factory=Future)
    started_at: float = field(default_factory=time.monotonic)
    fresh_until: float = 0.0


class SharedCall(Generic[T]):
    """Calls `ask` in its own thread, never twice at once, and keeps its result or exception for
    `fresh_seconds`, and for at least `rest_factor` times as long as the call took. The thread belongs to no
    pool: a hanging call takes no thread from requests. The call cannot be interrupted, but no caller waits
    longer than the limit, and no second call starts before it returns.
    """

    def __init__(
        self,
        ask: Callable[[], T],
        *,
        name: str,
        limit_seconds: float,
        fresh_seconds: float,
        rest_factor: float = 0.0,
    ) -> None:
        self._ask = ask
        self._name = name
        self.limit_seconds = limit_seconds
        self._fresh_seconds = fresh_seconds
        self._rest_factor = rest_factor
        self._lock = threading.Lock()
        self._last: _Call[T] | None = None

    async def answer(self, *, within_seconds: float | None = None) -> T:
        """Returns the result of `ask`. Raises what it raised, and TimeoutError once it has taken `within_seconds`, by
        default `limit_seconds`. Does not wait for a call that has already taken longer."""
        call = self._current()
        if call.answer.done():
            return call.answer.result()
        limit_seconds = self.limit_seconds if within_seconds is None else within_seconds
        left_seconds = call.started_at + limit_seconds - time.monotonic()
        async with asyncio.timeout(max(left_seconds, 0)):
            return await asyncio.wrap_future(call.answer)

    def _current(self) -> _Call[T]:
        with self._lock:
            last = self._last
            if last is None or (last.answer.done() and time.monotonic() >= last.fresh_until):
                last = self._last = _Call[T]()
                # None of its waiters may cancel a running future.
                last.answer.set_running_or_notify_cancel()
                thread = threading.Thread(target=self._run, args=(last,), name=self._name, daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:  # no more threads available
                    last.answer.set_exception(error)
            return last

    def _run(self, call: _Call[T]) -> None:
        try:
            answer = self._ask()
        except Exception as error:
            call.fresh_until = time.monotonic() + self._fresh_seconds
            call.answer.set_exception(error)
        else:
            now = time.monotonic()
            rest_seconds = self._rest_factor * (now - call.started_at)
            call.fresh_until = now + max(self._fresh_seconds, rest_seconds)
            call.answer.set_result(answer)
