"""One running ffmpeg or ffprobe process: pipes, limits and exit status.

A process

- runs through a launcher (memory limit, sandbox, no core dumps, killed with its parent), in its own session, with
a fixed environment; - is killed with its process group after its wall-clock limit, or when it has used no processor
time for its stall limit, even while the caller is blocked in a pipe; while it runs, it beats the progress of the work
that started it; - never blocks on stderr, which a thread reads; the last 64 KiB are kept.

**Threads.** On Linux the kernel kills the process when the *thread* that started it ends. So the thread that calls
`start` keeps the `with` block open as long as the process is needed; other threads may read, write and wait.
"""

import errno
import io
import math
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import structlog

from app.platform.byte_sizes import GIB, MIB
from app.platform.errors import (
    FfmpegCancelled,
    FfmpegDiskFull,
    FfmpegError,
    FfmpegInterrupted,
    FfmpegKilled,
    FfmpegMissing,
    FfmpegTimeout,
)
from app.platform.metrics import ffmpeg_failures
from app.platform.progress import current_progress
from app.platform.threads import background_thread

from . import confinement, launcher
from .pipes import PipeTail, enlarge_pipe, processor_seconds
from .safety_options import NOT_DECODED, files_of, total_bytes

log = structlog.get_logger(__name__)

LONGEST_LINE_BYTES = 64 * 1024
POLL_SECONDS = 0.1
EXIT_POLL_SECONDS = 0.002
SUPERVISION_SECONDS = 1.0
# The kernel counts a limit of processor time by samples, which differ from the time that it reports.
SPENT_SHARE = 0.5
# Some forty frames of six bytes a pixel, and three stacks for each core.
DECODING_BYTES_PER_PIXEL = 240
THREAD_BYTES = 24 * MIB

# The C library's messages in the locale of ENVIRONMENT.
# Only ffmpeg's own level at a line's start counts: the rest of a line may be a file's.
DISK_FULL = re.compile(
    r"^(?:\[[^\]\n]* @ [^\]\n]*\] )*\[(?:error|fatal)\] .*: (?:No space left on device|Disk quota exceeded)$",
    re.MULTILINE,
)

ENVIRONMENT = {
    "PATH": os.defpath,
    "LANG": "C.UTF-8",
    # glibc reserves 64 MiB of address space per arena, and many arenas under many threads: unused, but counted by the
    # memory limit.
    "MALLOC_ARENA_MAX": "4",
}


@dataclass(frozen=True, kw_only=True)
class RunLimits:
    """Limits of one run.

    `wall_seconds`: time from start to end. `memory_bytes`: address space (Linux), and the largest single allocation
    on every system. `threads`: decoder threads of each input, None for ffmpeg's default. `max_pixels`: maximum pixels
    in one decoded frame. `stall_seconds`: how long it may use no processor time (Linux); not for a process whose
    pipe's other end may be slow. `cpu_seconds`: processor time of all threads, after which the process is killed;
    None for no limit. `probe_bytes`: how much of an input is searched for what describes its streams, None for
    ffmpeg's default. `output_bytes`: how large its output may become beyond twice its inputs. `sandbox`: the required
    barriers of the kernel around the process, see `confinement.Confinement`.
    """

    wall_seconds: float
    memory_bytes: int
    stall_seconds: float = math.inf
    threads: int | None = None
    max_pixels: int = 4096 * 2304
    cpu_seconds: int | None = None
    probe_bytes: int | None = None
    output_bytes: int = GIB
    sandbox: str = confinement.AUTO

    @property
    def reading_memory_bytes(self) -> int:
        """Address space of a run that reads files: what decoders and threads need for the largest frames. A file of
        20 MB can make a decoder take all that it may have."""
        threads_bytes = THREAD_BYTES * (os.cpu_count() or 1)
        return min(self.memory_bytes, 2 * GIB + threads_bytes + DECODING_BYTES_PER_PIXEL * self.max_pixels)


class _Stop(Enum):
    """Why the server killed a process."""

    TIMEOUT = "timeout"
    STALLED = "stalled"
    CANCELLED = "cancelled"
    CLOSED = "closed"


class FfmpegProcess:
    """A started process, for a `with` block: leaving the block kills it if it still runs, and reaps it.

    Leaving the block does not check the exit status; `wait` does.
    """

    def __init__(
        self, *, command: Sequence[str], purpose: str, limits: RunLimits, stdin: bool, stdout: bool
    ) -> None:
        """Start `command` (its first item an absolute path).

        Raises FfmpegMissing when it cannot be started, FfmpegError when its arguments are too long.
        """
        self.purpose = purpose
        self._limits = limits
        self._owner = threading.current_thread()
        self._stop: _Stop | None = None
        self._used_seconds: float | None = None
        self._program = "ffprobe" if "ffprobe" in Path(command[0]).name else "ffmpeg"
        self._counted = False
        self._progress = current_progress()
        # Guards reaping and killing, so that a reaped process id is never signalled.
        self._lock = threading.Lock()
        readable, writable = files_of(command)
        confined = confinement.Confinement(
            limits.reading_memory_bytes if readable else limits.memory_bytes,
            limits.cpu_seconds or 0,
            os.getpid(),
            limits.sandbox,
            readable,
            writable,
            limits.output_bytes + 2 * total_bytes(readable) if writable else 0,
        )
        try:
            self._process = subprocess.Popen(
                confined.launching(command),
                bufsize=0,
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE if stdout else subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=ENVIRONMENT,
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            if error.errno == errno.E2BIG:
                # The work's own fault, not this machine's.
                self.count_failure("failed")
                raise FfmpegError(
                    f"The video program could not be started for {purpose}: its command is too long.",
                    detail=f"{max(map(len, command)):,} of {sum(map(len, command)):,} characters in one argument",
                ) from error
            self.count_failure("missing")
            raise FfmpegMissing(
                "The server could not start its video program.", detail=f"{command[0]}: {error}"
            ) from error
        assert self._process.stderr is not None
        self._stderr = PipeTail(self._process.stderr, name=f"stderr-{self._process.pid}")
        self._ended = threading.Event()
        supervisor = background_thread(self._supervise, name=f"supervise-{self._process.pid}")
        try:
            self._stderr.start()
            supervisor.start()
        except RuntimeError:  # no further thread can be started
            self._kill(_Stop.CLOSED)
            self._process.wait()
            raise
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                enlarge_pipe(pipe)

    @property
    def stdin(self) -> IO[bytes]:
        """The unbuffered pipe to the process: a write may be short, see `write_all`."""
        if self._process.stdin is None:
            raise ValueError("the process was started without stdin")
        return self._process.stdin

    @property
    def stdout(self) -> IO[bytes]:
        """The unbuffered pipe from the process: a read may be short, see `read_exactly_into`."""
        if self._process.stdout is None:
            raise ValueError("the process was started without stdout")
        return self._process.stdout

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def stderr_tail(self) -> str:
        """The last 64 KiB of stderr so far; complete after `wait`."""
        return NOT_DECODED.sub("", self._stderr.text)

    def read_exactly_into(self, buffer: memoryview | bytearray) -> bool:
        """Fill `buffer` from stdout. Returns False if the output ended before the first byte.

        An end within the buffer raises what `wait` raises, or FfmpegError if the process exits with status 0. After
        False the caller still has to `wait`: the output of a killed process ends cleanly too.
        """
        view = memoryview(buffer).cast("B")
        filled = 0
        while filled < len(view):
            count: int = self.stdout.readinto(view[filled:])  # type: ignore[attr-defined]
            if not count:
                break
            filled += count
            self._progress.beat()
        if filled == len(view):
            return True
        if filled == 0:
            return False
        self.wait()
        self.count_failure("failed")
        raise FfmpegError(
            f"The video program failed while {self.purpose}: its last frame was cut short.",
            detail=f"{filled} of {len(view)} bytes\n{self.stderr_tail}",
        )

    def write_all(self, data: memoryview | bytes | bytearray) -> None:
        """Write all of `data` to stdin. Raises what `wait` raises when the process has ended, else FfmpegError."""
        view = memoryview(data).cast("B")
        written = 0
        try:
            while written < len(view):
                written += self.stdin.write(view[written:])
                self._progress.beat()
        except BrokenPipeError:
            self.wait()
            self.count_failure("failed")
            raise FfmpegError(
                f"The video program failed while {self.purpose}: it stopped reading before the end.",
                detail=self.stderr_tail,
            ) from None

    def close_stdin(self) -> None:
        """Close stdin, which ends the process's input."""
        self.stdin.close()

    def lines(self) -> Iterator[str]:
        """The lines of stdout without their line ends; a longer line comes in pieces of 64 KiB."""
        reader = io.BufferedReader(self.stdout, 64 * 1024)  # type: ignore[type-var]
        while line := reader.readline(LONGEST_LINE_BYTES):
            self._progress.beat()
            yield line.decode("utf-8", errors="replace").rstrip("\r\n")

    def wait(self, *, cancelled: Callable[[], bool] | None = None) -> None:
        """Wait for the end and poll `cancelled` every 0.1 s. An unread stdout pipe blocks the process.

        Raises FfmpegTimeout after the wall-clock limit or when it stalled, FfmpegKilled when a signal ended
        the process, FfmpegCancelled when `cancelled` returned true, FfmpegMissing when it could not be
        started, FfmpegDiskFull when the disk had no room for its output, and FfmpegError for any other status
        than 0; each with the end of stderr in `detail`. A further call has the same result.
        """
        while not self._has_ended():
            if cancelled is not None and cancelled():
                self._kill(_Stop.CANCELLED)
        self._ended.set()
        self._raise_for_status()

    def count_failure(self, reason: str) -> None:
        """Count this run as a failure, at most once."""
        if not self._counted:
            self._counted = True
            ffmpeg_failures.labels(program=self._program, reason=reason).inc()

    def cancel(self) -> None:
        """Kill the process if it still runs: `wait` raises FfmpegCancelled."""
        self._kill(_Stop.CANCELLED)

    def kill(self) -> None:
        """Kill the process and its group if it still runs."""
        self._kill(_Stop.CLOSED)

    def __enter__(self) -> Self:
        if threading.current_thread() is not self._owner:
            raise RuntimeError("only the thread that started a process may enter its `with` block")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill the process if it still runs, reap it and close its pipes, as leaving the `with` block does."""
        self.kill()
        while not self._has_ended():
            pass
        self._ended.set()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def _has_ended(self) -> bool:
        """Wait a little for the end; true once the process is reaped."""
        self._stderr.join(POLL_SECONDS)
        if self._stderr.is_alive():
            return False
        with self._lock:
            if self._limits.cpu_seconds is not None and self._process.returncode is None:
                # Until it is reaped, a process that has ended still tells.
                self._used_seconds = processor_seconds(self._process.pid)
            if self._process.poll() is not None:
                return True
        time.sleep(EXIT_POLL_SECONDS)
        return False

    def _supervise(self) -> None:
        ends_at = time.monotonic() + self._limits.wall_seconds
        used, still_seconds = None, 0.0
        while not self._ended.wait(max(0.0, min(SUPERVISION_SECONDS, ends_at - time.monotonic()))):
            if time.monotonic() >= ends_at:
                self._kill(_Stop.TIMEOUT)
                return
            before, used = used, processor_seconds(self._process.pid)
            if used is None or used != before:
                still_seconds = 0.0
                self._progress.beat()
                continue
            still_seconds += SUPERVISION_SECONDS
            if still_seconds >= self._limits.stall_seconds:
                self._kill(_Stop.STALLED)
                return

    def _kill(self, reason: _Stop) -> None:
        with self._lock:
            if self._process.poll() is not None:
                return
            self._stop = self._stop or reason
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                # macOS raises these for a group of zombies.
                log.debug("process_group_already_gone", pid=self._process.pid, purpose=self.purpose)

    def _raise_for_status(self) -> None:
        status = self._process.returncode
        tail = self.stderr_tail
        # ffmpeg 5 exits with status 0 when the disk has no room for the end of a file.
        is_disk_full = DISK_FULL.search(tail) is not None
        if status == 0 and not is_disk_full:
            return
        detail = f"status {status} while {self.purpose}\n{tail}"
        if self._stop is _Stop.TIMEOUT:
            seconds = self._limits.wall_seconds
            self.count_failure("timeout")
            raise FfmpegTimeout(
                f"The video program took longer than {seconds:g} s while {self.purpose}.", detail=detail
            )
        if self._stop is _Stop.STALLED:
            self.count_failure("timeout")
            raise FfmpegTimeout(f"The video program stalled while {self.purpose}.", detail=detail)
        if self._stop is _Stop.CANCELLED:
            raise FfmpegCancelled(f"The video program was stopped while {self.purpose}.", detail=detail)
        if status < 0:
            if self._stop is None and not self._owner.is_alive():
                detail = f"the thread that started it has ended, so the kernel killed it\n{detail}"
            if self._stop is None:
                self.count_failure("killed")
            limit, used = self._limits.cpu_seconds, self._used_seconds
            is_spent = limit is not None and (used is None or used >= SPENT_SHARE * limit)
            is_interrupted = self._stop is None and status == -signal.SIGKILL and not is_spent
            kind = FfmpegInterrupted if is_interrupted else FfmpegKilled
            raise kind(f"The video program was killed while {self.purpose}.", detail=detail)
        if status == launcher.EXIT_NOT_STARTED and launcher.LAUNCHER_PREFIX in tail:
            self.count_failure("missing")
            raise FfmpegMissing("The server could not start its video program.", detail=detail)
        self.count_failure("failed")
        if is_disk_full:
            raise FfmpegDiskFull(
                f"The disk is full: the video program failed while {self.purpose}.", detail=detail
            )
        raise FfmpegError(f"The video program failed while {self.purpose}.", detail=detail)
