"""Work for a client that may disconnect before it is done."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import anyio
from anyio import CapacityLimiter, to_thread
from starlette.requests import ClientDisconnect, Request

T = TypeVar("T")


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
