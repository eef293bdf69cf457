"""Work for a client that may leave before it is done."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import anyio
from anyio import to_thread
from starlette.requests import ClientDisconnect, Request

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ClientConnection:
    """The connection of a request whose body has been read."""

    request: Request

    async def run(self, work: Callable[[], T], *, cancelled: threading.Event) -> T:
        """What `work` returns in a thread. Raises what it raises, and ClientDisconnect when the client leaves first.

        `cancelled` is set when the client leaves or the caller is cancelled: the work should end then.
        """
        left = anyio.Event()
        result: T
        fault: Exception | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch, left, cancelled)
            try:
                result = await to_thread.run_sync(work, abandon_on_cancel=True)
            except Exception as error:  # raised below, and not as one of a group
                fault = error
            finally:
                cancelled.set()
                tasks.cancel_scope.cancel()
        if left.is_set():
            raise ClientDisconnect
        if fault is not None:
            raise fault
        return result

    async def _watch(self, left: anyio.Event, cancelled: threading.Event) -> None:
        while (await self.request.receive())["type"] != "http.disconnect":
            pass
        left.set()
        cancelled.set()
