"""The versions of a worker's software: a render's segments come from several machines, and should be alike."""

import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from app.platform.errors import FfmpegError
from app.platform.media.codecs import CODECS
from app.platform.media.containers import VideoCodec
from app.platform.media.ffmpeg import LIST_BYTES, FfmpegRunner

UNKNOWN = "unknown"
NO_DRIVER = "none"
DRIVER_VERSION = Path("/proc/driver/nvidia/version")


def software_versions(runner: FfmpegRunner) -> Mapping[str, str]:
    """Versions by name: `ffmpeg`, `torch`, and `driver`, NVIDIA's in the kernel."""
    return {"ffmpeg": _ffmpeg(runner), "torch": metadata.version("torch"), "driver": _driver()}


def lacked_codecs(runner: FfmpegRunner) -> list[VideoCodec]:
    """The codecs of renders for which ffmpeg has no encoder; none if it does not tell."""
    try:
        told = runner.run(["-encoders"], purpose="telling its encoders", stdout_limit_bytes=LIST_BYTES)
    except FfmpegError:
        return []
    encoders = {
        words[1]
        for line in told.stdout.decode(errors="replace").splitlines()
        if len(words := line.split()) > 1
    }
    return [codec for codec, its in CODECS.items() if its.encoder not in encoders]


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
