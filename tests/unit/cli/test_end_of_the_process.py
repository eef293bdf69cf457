"""The command's process ends at once, but after all that a usual end of Python does for others."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FULL = Path("/dev/full")
# What a command may leave behind it: a thread that works, an exit function, and text in stdout's buffer.
COMMAND = """
import atexit, sys, threading, time
import app.cli.application

def late():
    time.sleep(0.2)
    print("thread")

def application(prog_name):
    atexit.register(print, "exit function")
    threading.Thread(target=late).start()
    print("command")
    {ending}

app.cli.application.application = application
from app.cli import main
main()
"""


def run(ending: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", COMMAND.format(ending=ending)], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("ending", "status", "told"),
    [
        ("sys.exit(0)", 0, ""),
        ("sys.exit(5)", 5, ""),
        ("sys.exit('a sentence')", 1, "a sentence\n"),
        ("raise ValueError('a fault')", 1, "ValueError: a fault\n"),
    ],
)
def test_threads_and_exit_functions_come_first(ending: str, status: int, told: str) -> None:
    done = run(ending)
    assert (done.returncode, done.stdout.split("\n")) == (status, ["command", "thread", "exit function", ""])
    assert done.stderr.endswith(told)
    assert bool(done.stderr) == bool(told)


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["engines", "--json"]])
def test_output_that_cannot_be_written_is_a_failure(arguments: list[str], tmp_path: Path) -> None:
    with FULL.open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "app.cli", *arguments],
            env={**os.environ, "REGEN_DATA_DIR": str(tmp_path)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "No space left on device.\n")
