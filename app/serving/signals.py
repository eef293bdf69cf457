"""The signals that stop the server."""

import os
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def exit_on_signals() -> None:
    """Make SIGINT, SIGTERM and SIGHUP end this process at once with exit status 0, until other handlers are set.

    For the time of the start, before any work.
    """
    for number in STOP_SIGNALS:
        # nohup ignores SIGHUP, and a shell ignores SIGINT for a background process: leave that.
        if signal.getsignal(number) is not signal.SIG_IGN:
            # Not by an exception, which a module that is being imported might swallow.
            signal.signal(number, lambda _number, _frame: os._exit(os.EX_OK))


class StopSignals:
    """Within its block, SIGINT, SIGTERM and SIGHUP request a stop instead of ending the process.

    A handler may interrupt the main thread anywhere, so it takes no lock: it sets `requested`, the second time also
    `repeated`, and calls `on_stop` with whether the request is repeated.
    """

    def __init__(self) -> None:
        self.requested = False
        self.repeated = False
        self.on_stop: Callable[[bool], None] = lambda _again: None
        self._before: dict[signal.Signals, Any] = {}

    def request(self) -> None:
        """Request a stop; callable from any thread."""
        again, self.requested = self.requested, True
        self.repeated = again
        self.on_stop(again)

    def __enter__(self) -> Self:
        for number in STOP_SIGNALS:
            # nohup ignores SIGHUP: leave that.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self.request()
