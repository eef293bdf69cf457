"""A worker tells the versions of what it computes with."""

import subprocess

from app.platform.media.ffmpeg import FfmpegRunner, RunLimits, find_programs
from worker.software_versions import UNKNOWN, software_versions


def test_the_version_is_the_programs_own() -> None:
    programs = find_programs()
    limits = RunLimits(wall_seconds=60, memory_bytes=2**32)
    versions = software_versions(FfmpegRunner(programs=programs, limits=limits))
    printed = subprocess.run([programs.ffmpeg, "-version"], capture_output=True, text=True, check=True).stdout
    assert versions["ffmpeg"] != UNKNOWN
    assert printed.startswith(f"ffmpeg version {versions['ffmpeg']} ")
