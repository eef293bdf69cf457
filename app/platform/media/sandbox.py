"""The kernel's barriers around ffmpeg and ffprobe on this machine; `confinement.py` says which."""

import os
import platform
import sys
from contextlib import suppress
from pathlib import Path

from app.platform.errors import ConfigurationError
from app.platform.settings import Settings

from . import confinement, launcher

PR_SET_DUMPABLE = 4
GROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def missing_layers() -> list[str]:
    """The barriers that this machine lacks, in words; none if it has all of them."""
    if sys.platform != "linux":
        return [f"{platform.system()} has none that the server supports"]
    missing = []
    try:
        confinement.landlock_version()
    except OSError as error:
        missing.append(f"Landlock (what files it sees): {error.strerror}")
    status = Path("/proc/self/status").read_text("ascii", errors="replace")
    if "\nSeccomp:" not in status:
        missing.append("seccomp (no sockets, no processes): the kernel was built without it")
    elif platform.machine() not in confinement.MACHINES:
        missing.append(f"seccomp (no sockets, no processes): no filter for {platform.machine()}")
    return missing


def require_sandbox(settings: Settings) -> None:
    """Raises ConfigurationError when the settings require barriers that this machine lacks."""
    missing = missing_layers() if settings.sandbox == confinement.REQUIRED else []
    if missing:
        raise ConfigurationError(
            "REGEN_SANDBOX=required, but this machine lacks a part of the sandbox for ffmpeg: "
            f"{'; '.join(missing)}. Use a kernel that has it, or REGEN_SANDBOX=auto."
        )


def close_memory(settings: Settings) -> None:
    """Keep other programs of this user, ffmpeg among them, out of this process's memory and environment (Linux).

    Threads of this process are not affected; a program that it becomes or starts is open again.
    """
    if sys.platform == "linux" and not settings.debuggable:
        launcher.call_kernel("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)


def memory_limit(chosen: int | None, *, most: int, least: int, share: float = 1.0) -> int:
    """Bytes of address space for a program: `chosen`, otherwise that share of this machine's memory, or of
    its control group's if less, between `least` and `most`."""
    if chosen is not None:
        return chosen
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in GROUP_LIMITS:
        with suppress(OSError, ValueError):  # "max", and machines without control groups
            memory = min(memory, int(path.read_text("ascii")))
    return max(least, min(most, int(memory * share)))
