"""The versions of a worker's software: a render's segments come from several machines, and should be alike."""

import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from app.platform.errors import FfmpegError
from app.platform.media.codecs import CODECS
from app.platform.media.containers import VideoCodec
from app.platform.media.ffmpeg import FfmpegRunner

UNKNOWN = "unknown"
NO_DRIVER = "none"
DRIVER_VERSION = Path("/proc/driver/nvidia/version")


def software_versions(runner: FfmpegRunner) -> Mapping[str, str]:
    """Versions by name: `ffmpeg`, `torch`, and `driver`, NVIDIA's in the kernel."""
    return {"ffmpeg": _ffmpeg(runner), "torch": metadata.version("torch"), "driver": _driver()}


def lacked_codecs(runner: FfmpegRunner) -> list[VideoCodec]:
    """The codecs of renders for which ffmpeg has no encoder; none if it does not tell."""
    try:
        encoders = runner.components("encoders")
    except FfmpegError:
        return []
    return [codec for codec, its in CODECS.items() if its.encoder not in encoders]


def _ffmpeg(runner: FfmpegRunner) -> str:
    try:
        return runner.version() or UNKNOWN
    except FfmpegError:
        return UNKNOWN


def _driver() -> str:
    try:
        line = DRIVER_VERSION.read_text().splitlines()[0]
    except (OSError, IndexError):
        return NO_DRIVER
    found = re.search(r"\d+(?:\.\d+)+", line)
    return found.group() if found else UNKNOWN
