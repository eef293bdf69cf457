"""What does the sandbox cost each call of ffmpeg? A program that does nothing, started bare and through the launchers.

    python -m bench.sandbox [--rounds 100]

Every round starts each once, in turns. As root the measurement has priority over the machine's other work.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from app.platform.media.confinement import OFF, PYTHON_LAUNCHER, REQUIRED, Confinement, compiled_launcher
from bench.machine import heading, table

PROGRAM = ["/bin/true"]
PRIORITY = 10  # of real-time processes


def started(command: Sequence[str]) -> tuple[float, float]:
    """Milliseconds from start to end, and of processor time."""
    begun_at = time.perf_counter()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, env={})
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun_at
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return 1000 * seconds, 1000 * (used.ru_utime + used.ru_stime)


def commands() -> dict[str, list[str]]:
    found = {"bare": PROGRAM}
    for sandbox in (OFF, REQUIRED):
        confined = Confinement(2**33, 60, os.getpid(), sandbox, ("/dev/null",), ("/dev/null",))
        command = confined.launching(PROGRAM)
        words = command[1 if compiled_launcher() else len(PYTHON_LAUNCHER) :]
        if compiled := compiled_launcher():
            found[f"compiled launcher, sandbox {sandbox}"] = [compiled, *words]
        found[f"launcher in Python, sandbox {sandbox}"] = [*PYTHON_LAUNCHER, *words]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.sandbox")
    parser.add_argument("--rounds", type=int, default=100)
    rounds = parser.parse_args().rounds
    if sys.platform == "linux":
        with suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    chosen = commands()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in chosen}
    for _ in range(rounds):
        for name, command in chosen.items():
            times[name].append(started(command))
    medians = {
        name: [statistics.median(one) for one in zip(*taken, strict=True)] for name, taken in times.items()
    }
    print(f"{heading()} Medians of {rounds} starts of {PROGRAM[0]}, load {os.getloadavg()[0]:.0f}.\n")
    rows = [
        [
            name,
            f"{wall:.2f} ms",
            f"{used:.2f} ms",
            f"{wall - medians['bare'][0]:.2f} ms",
            f"{used - medians['bare'][1]:.2f} ms",
        ]
        for name, (wall, used) in medians.items()
    ]
    print(table(["start", "start to end", "processor time", "more than bare", "processor time more"], rows))


if __name__ == "__main__":
    main()
