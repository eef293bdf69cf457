"""The pipes of a running ffmpeg process, and the processor time that it has used."""

import fcntl
import os
import sys
import threading
from pathlib import Path
from typing import IO

import structlog

log = structlog.get_logger(__name__)

STDERR_KEPT_BYTES = 64 * 1024
PIPE_BYTES = 1024 * 1024


class PipeTail(threading.Thread):
    """Reads a pipe to its end and keeps the last bytes."""

    def __init__(self, pipe: IO[bytes], *, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._pipe = pipe
        self._kept = bytearray()

    def run(self) -> None:
        while chunk := self._pipe.read(64 * 1024):
            kept = self._kept + chunk
            self._kept = kept[-STDERR_KEPT_BYTES:]

    @property
    def text(self) -> str:
        return bytes(self._kept).decode("utf-8", errors="replace")


def processor_seconds(pid: int) -> float | None:
    """The processor time that the process has used; None if the system does not report it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace")
    except OSError:
        return None
    # The name before the last parenthesis may contain anything; user and system time are the fields 14 and 15.
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def enlarge_pipe(pipe: IO[bytes]) -> None:
    """Enlarge a pipe to 1 MiB where the system allows it, so that a frame needs few context switches."""
    if sys.platform == "linux":
        try:
            fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        except OSError as error:
            # The total size of an unprivileged user's pipes is limited; the default 64 KiB work too.
            log.debug("pipe_not_enlarged", error=str(error))
