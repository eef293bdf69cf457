"""The versions of a worker's software: a render's segments come from several machines, and should be alike."""

import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from app.platform.errors import FfmpegError
from app.platform.media.ffmpeg import LIST_BYTES, FfmpegRunner

UNKNOWN = "unknown"
NO_DRIVER = "none"
DRIVER_VERSION = Path("/proc/driver/nvidia/version")


def software_versions(runner: FfmpegRunner) -> Mapping[str, str]:
    """Versions by name: `ffmpeg`, `torch`, and `driver`, NVIDIA's in the kernel."""
    return {"ffmpeg": _ffmpeg(runner), "torch": metadata.version("torch"), "driver": _driver()}


def _ffmpeg(runner: FfmpegRunner) -> str:
    try:
        told = runner.run(["-version"], purpose="telling its version", stdout_limit_bytes=LIST_BYTES)
    except FfmpegError:
        return UNKNOWN
    words = told.stdout.split(maxsplit=3)
    return words[2].decode(errors="replace") if len(words) > 2 else UNKNOWN


def _driver() -> str:
    try:
        line = DRIVER_VERSION.read_text().splitlines()[0]
    except (OSError, IndexError):
        return NO_DRIVER
    found = re.search(r"\d+(?:\.\d+)+", line)
    return found.group() if found else UNKNOWN
