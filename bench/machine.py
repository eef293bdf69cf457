"""What figures are worth nothing without: the machine, the versions, and the command that measured them."""

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch


def heading() -> str:
    """Date, command and machine, to stand above a table."""
    words = ["DIRECTORY" if word.startswith("/") else word for word in sys.orig_argv[1:]]
    return f"{datetime.now(UTC):%Y-%m-%d}, `{shlex.join(['python', *words])}`: {machine()}."


def machine() -> str:
    """Processor, GPU where there is one, and versions."""
    devices = [f"{processor()}, {os.cpu_count()} cores"]
    if torch.cuda.is_available():
        devices.append(torch.cuda.get_device_name())
    versions = [
        f"Python {platform.python_version()}",
        f"torch {torch.__version__} ({torch.get_num_threads()} threads)",
        f"numpy {np.__version__}",
        f"ffmpeg {_ffmpeg_version()}",
    ]
    return "; ".join([*devices, ", ".join(versions)])


def processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    except OSError:
        pass
    return platform.processor() or platform.machine()


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """In Markdown."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines))


def _ffmpeg_version() -> str:
    try:
        answer = subprocess.run(["ffmpeg", "-version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "none"
    return answer.stdout.split()[2]
