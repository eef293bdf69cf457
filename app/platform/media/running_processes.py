"""Started processes: those of one runner and of those made of it; runs of which only end and output matter."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakSet

from app.platform.errors import FfmpegAnswerTooLong, FfmpegError

from .process import FfmpegProcess


@dataclass(frozen=True, kw_only=True)
class Completed:
    """A successful run. `stdout` is its output, empty unless requested; `stderr` is the last 64 KiB."""

    stdout: bytes
    stderr: str


def complete(
    process: FfmpegProcess, *, purpose: str, limit_bytes: int, cancelled: Callable[[], bool] | None
) -> Completed:
    """Wait for the end of a process whose stdout is captured if `limit_bytes` is not 0.

    Raises FfmpegAnswerTooLong for more bytes, and what `FfmpegProcess.wait` raises.
    """
    captured = bytearray()
    reader = threading.Thread(target=_capture, args=(process, captured, limit_bytes), daemon=True)
    if limit_bytes > 0:
        reader.start()
    try:
        process.wait(cancelled=cancelled)
    except FfmpegError:
        if len(captured) <= limit_bytes:
            raise
    finally:
        process.kill()
        if limit_bytes > 0:
            reader.join()
    if len(captured) > limit_bytes:
        process.count_failure("failed")
        raise FfmpegAnswerTooLong(
            f"The video program failed while {purpose}: its answer was too long.",
            detail=f"more than {limit_bytes} bytes",
        )
    return Completed(stdout=bytes(captured), stderr=process.stderr_tail)


def _capture(process: FfmpegProcess, captured: bytearray, limit_bytes: int) -> None:
    while chunk := process.stdout.read(64 * 1024):
        captured += chunk
        if len(captured) > limit_bytes:
            process.kill()
            return


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
