"""Only the latest of several requests for one thing continues."""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

from anyio import CancelScope


class LatestAlone:
    """For one event loop."""

    def __init__(self) -> None:
        self._scopes: dict[Hashable, CancelScope] = {}

    @contextmanager
    def alone(self, thing: Hashable, *, otherwise: Callable[[], Exception]) -> Iterator[None]:
        """Cancels the request that has `thing`, if there is one; raises `otherwise()` once a later one comes."""
        if (earlier := self._scopes.get(thing)) is not None:
            earlier.cancel()
        with CancelScope() as scope:
            self._scopes[thing] = scope
            try:
                yield
            finally:
                if self._scopes.get(thing) is scope:
                    del self._scopes[thing]
        if scope.cancelled_caught:
            raise otherwise()
