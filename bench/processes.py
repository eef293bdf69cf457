"""Programs that are measured as a whole: each a process of its own, what it took, and its end whatever happens."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PATIENCE_SECONDS = 3600


class ProgramFailed(Exception):
    """It ended with another status than 0, or did not end."""


@dataclass(frozen=True, kw_only=True)
class Took:
    """`cpu_seconds`: of all threads, with those of the children that it has waited for."""

    wall_seconds: float
    cpu_seconds: float


def run(command: Sequence[str | Path], *, environment: Mapping[str, str], log: Path) -> Took:
    """Run the program to its end, in the repository's root; what it says goes to `log`.

    Raises ProgramFailed with the end of what it said.
    """
    with log.open("wb") as output:
        started = time.monotonic()
        process = subprocess.Popen(
            [str(word) for word in command],
            env=dict(environment),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        # Of its session are the ffmpegs that it started.
        timer = threading.Timer(PATIENCE_SECONDS, os.killpg, (process.pid, signal.SIGKILL))
        timer.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            timer.cancel()
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        seconds = time.monotonic() - started
    if process.returncode:
        said = log.read_text(errors="replace")[-2000:]
        raise ProgramFailed(f"{command[0]} ended with {process.returncode}: {said}")
    return Took(wall_seconds=seconds, cpu_seconds=usage.ru_utime + usage.ru_stime)
