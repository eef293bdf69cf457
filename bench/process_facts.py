"""What a process has cost so far, as Linux counts it."""

import os
from dataclasses import dataclass
from pathlib import Path

MIB = 1024**2
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True)
class CpuSeconds:
    """User and system time: the process's own, with all of its threads, and that of children that it has waited for."""

    own: float
    children: float

    def __add__(self, other: "CpuSeconds") -> "CpuSeconds":
        return CpuSeconds(own=self.own + other.own, children=self.children + other.children)

    def __sub__(self, earlier: "CpuSeconds") -> "CpuSeconds":
        return CpuSeconds(own=self.own - earlier.own, children=self.children - earlier.children)


def cpu_seconds(pid: int) -> CpuSeconds:
    """Counted in hundredths of a second, on most machines."""
    # The name, in brackets, may hold blanks.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own, own_system, children, children_system = (int(field) / TICKS_PER_SECOND for field in fields[11:15])
    return CpuSeconds(own=own + own_system, children=children + children_system)


def peak_bytes(pid: int) -> int:
    """The most memory that the process has had resident (VmHWM)."""
    return _memory(pid, "VmHWM")


def resident_bytes(pid: int) -> int:
    """What is resident now (VmRSS)."""
    return _memory(pid, "VmRSS")


def forget_peak(pid: int) -> None:
    """From now on `peak_bytes` is that of what follows."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def children_of(pid: int) -> list[int]:
    """Its children and theirs, as of now."""
    try:
        tasks = [*Path(f"/proc/{pid}/task").iterdir()]
    except FileNotFoundError:
        return []
    found = []
    for task in tasks:
        try:
            children = (task / "children").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        for child in map(int, children):
            found += [child, *children_of(child)]
    return found


def command_of(pid: int) -> str:
    """The name of its program. Empty for one that has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def arguments_of(pid: int) -> list[str]:
    """Its command line. Empty for one that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def _memory(pid: int, field: str) -> int:
    """Raises ProcessLookupError for a process that has ended."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    except FileNotFoundError:
        pass
    raise ProcessLookupError(pid)
