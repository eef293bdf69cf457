"""What a soak does to workers' ffmpegs: kills and freezes them, and breaks one worker's for good."""

import contextlib
import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from app.platform.media.programs import find_programs
from bench.cluster import Cluster

FREEZE_SHARE = 0.25
FREEZE_SECONDS = (2.0, 8.0)
BROKEN_MACHINE = "broken"


@dataclass(kw_only=True)
class EncoderStrikes:
    """What was done to ffmpegs so far."""

    done: Counter[str] = field(default_factory=Counter)
    frozen: dict[int, float] = field(default_factory=dict)

    def keep_pace(self, cluster: Cluster, chance: random.Random, strikes: int, *, share: float) -> None:
        """Strikes once if less than this share of all strikes were made."""
        if self.done.total() < strikes * min(share, 1.0):
            self.strike(cluster, chance)

    def strike(self, cluster: Cluster, chance: random.Random) -> None:
        """Kills or freezes one that runs."""
        running = [pid for worker in cluster.workers for pid in _ffmpegs_of(worker.process.pid)]
        running = [pid for pid in running if pid not in self.frozen]
        if not running:
            return
        pid = chance.choice(running)
        freezes = chance.random() < FREEZE_SHARE
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP if freezes else signal.SIGKILL)
            self.done["frozen" if freezes else "killed"] += 1
            if freezes:
                self.frozen[pid] = time.monotonic() + chance.uniform(*FREEZE_SECONDS)

    def thaw(self, *, everyone: bool = False) -> None:
        for pid, until in list(self.frozen.items()):
            if everyone or time.monotonic() >= until:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
                del self.frozen[pid]


def write_broken_program(path: Path) -> None:
    """An ffmpeg that encodes and cannot read a file."""
    path.write_text(
        '#!/bin/sh\ncase "$*" in *lavfi*|*pipe:0*) ;; *" -i "*) echo "decoder not found" >&2; exit 1 ;; esac\n'
        f'exec {find_programs().ffmpeg} "$@"\n'
    )
    path.chmod(0o755)


def _ffmpegs_of(pid: int) -> list[int]:
    children: list[str] = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # it has ended
            children += thread.read_text().split()
    return [int(child) for child in children if _program(child) == "ffmpeg"]


def _program(pid: str) -> str:
    try:
        return Path(Path(f"/proc/{pid}/cmdline").read_text().partition("\0")[0]).name
    except OSError:
        return ""
