"""The pipes of a running ffmpeg process, and the processor time that it has used."""

import fcntl
import os
import select
import sys
import threading
from pathlib import Path
from typing import IO

import structlog

log = structlog.get_logger(__name__)

STDERR_KEPT_BYTES = 64 * 1024
PIPE_BYTES = 1024 * 1024


class PipeTail(threading.Thread):
    """Reads an unbuffered pipe to its end and keeps the last bytes."""

    def __init__(self, pipe: IO[bytes], *, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._pipe = pipe
        # Two threads may not wait with one object.
        self._waiting, self._looking = select.poll(), select.poll()
        for poll in (self._waiting, self._looking):
            poll.register(pipe, select.POLLIN)
        self._kept = bytearray()
        self._is_at_end = False
        # Guards reading and what is kept.
        self._lock = threading.Lock()

    def run(self) -> None:
        while not self._is_at_end:
            self._waiting.poll()
            self._read_what_is_there()

    @property
    def text(self) -> str:
        """All that was written until now, however late the thread is, or its last bytes."""
        self._read_what_is_there()
        return bytes(self._kept).decode("utf-8", errors="replace")

    def _read_what_is_there(self) -> None:
        with self._lock:
            while not self._is_at_end and self._looking.poll(0):
                chunk = self._pipe.read(64 * 1024)
                self._is_at_end = not chunk
                self._kept = (self._kept + chunk)[-STDERR_KEPT_BYTES:]


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
