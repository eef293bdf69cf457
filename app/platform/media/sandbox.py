"""The kernel's barriers around ffmpeg and ffprobe that this machine has; `launcher.py` puts them up."""

import platform
import sys
from pathlib import Path

from app.platform.errors import ConfigurationError
from app.platform.settings import Settings

from . import launcher


def missing_layers() -> list[str]:
    """The barriers that this machine lacks, in words; none where all of them hold."""
    if sys.platform != "linux":
        return [f"{platform.system()} has none that the server knows of"]
    missing = []
    try:
        launcher.landlock_version()
    except OSError as error:
        missing.append(f"Landlock (what files it sees): {error.strerror}")
    status = Path("/proc/self/status").read_text("ascii", errors="replace")
    if "\nSeccomp:" not in status:
        missing.append("seccomp (no sockets): the kernel was built without it")
    elif platform.machine() not in launcher.SYSTEM_CALLS:
        missing.append(f"seccomp (no sockets): no filter for {platform.machine()}")
    return missing


def require_sandbox(settings: Settings) -> None:
    """Raises ConfigurationError when the settings require barriers that this machine lacks."""
    missing = missing_layers() if settings.sandbox == launcher.REQUIRED else []
    if missing:
        raise ConfigurationError(
            "REGEN_SANDBOX=required, but this machine lacks a part of the sandbox for ffmpeg: "
            f"{'; '.join(missing)}. Use a kernel that has it, or REGEN_SANDBOX=auto."
        )
