"""The signals that stop the server."""

import os
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def exit_on_signals() -> None:
    """Until others are set, SIGINT, SIGTERM and SIGHUP end this process at once, with exit status 0.

    For a start, with nothing in hand yet.
    """
    for number in STOP_SIGNALS:
        # nohup has SIGHUP ignored, a shell SIGINT of what it runs beside itself: leave that.
        if signal.getsignal(number) is not signal.SIG_IGN:
            # Not by an exception: what is being imported might swallow it.
            signal.signal(number, lambda _number, _frame: os._exit(os.EX_OK))


class StopSignals:
    """Within its block, SIGINT, SIGTERM and SIGHUP ask for a stop instead of ending the process.

    A handler may interrupt the main thread anywhere, so it takes no lock: it sets `requested`, the second time
    `repeated`, and calls `on_stop` with whether this is a repeated request.
    """

    def __init__(self) -> None:
        self.requested = False
        self.repeated = False
        self.on_stop: Callable[[bool], None] = lambda _again: None
        self._before: dict[signal.Signals, Any] = {}

    def request(self) -> None:
        """Ask for a stop from within; may be called from any thread."""
        again, self.requested = self.requested, True
        self.repeated = again
        self.on_stop(again)

    def __enter__(self) -> Self:
        for number in STOP_SIGNALS:
            # nohup has SIGHUP ignored: leave that.
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
