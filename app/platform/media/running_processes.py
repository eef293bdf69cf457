"""The processes that one runner and those made of it have started."""

import threading
from weakref import WeakSet

from .process import FfmpegProcess


class RunningProcesses:
    """For any thread."""

    def __init__(self) -> None:
        self._stopped = False
        self._started: WeakSet[FfmpegProcess] = WeakSet()
        self._lock = threading.Lock()

    def add(self, process: FfmpegProcess) -> None:
        with self._lock:
            self._started.add(process)
            stopped = self._stopped
        if stopped:
            process.cancel()

    def stop(self) -> None:
        """Kill them and any added from now on: their callers get FfmpegCancelled."""
        with self._lock:
            self._stopped = True
            started = list(self._started)
        for process in started:
            process.cancel()
