"""What a soak does to machines: workers whose clocks are wrong, and a disk for uploads that is full for a while."""

import contextlib
import random
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from bench.cluster import Cluster, WorkerProcess

# libfaketime breaks the sleeps of Python 3.11 and later. Children keep the right time.
SKEWED_CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long skew;
static int (*real)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
    const char *seconds = getenv("SKEW_SECONDS");
    skew = seconds ? atol(seconds) : 0;
    real = dlsym(RTLD_NEXT, "clock_gettime");
    unsetenv("LD_PRELOAD");
}

int clock_gettime(clockid_t clock, struct timespec *at) {
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int status = real(clock, at);
    if (!status && clock == CLOCK_REALTIME) at->tv_sec += skew;
    return status;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    struct timespec now;
    int status = clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return status;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"""
SKEW_SECONDS = 600
SPOOL_BYTES = 64 * 2**20
# What the API never gives away of it.
KEEP_FREE_BYTES = 2**20
FULL_SECONDS = (1.0, 4.0)


def skewed_clock(library: Path, *, ahead: bool) -> dict[str, str]:
    """Variables of a process whose clock is ten minutes ahead or behind; its monotonic clock is right."""
    if not library.exists():
        compile_library: list[str | Path] = ["cc", "-shared", "-fPIC", "-o", library, "-xc", "-", "-ldl"]
        subprocess.run(compile_library, input=SKEWED_CLOCK.encode(), check=True)
    return {"LD_PRELOAD": str(library), "SKEW_SECONDS": str(SKEW_SECONDS if ahead else -SKEW_SECONDS)}


@dataclass(kw_only=True)
class SkewedWorkers:
    """Workers whose clocks are wrong, one ahead and one behind. Those that are killed are replaced by their like."""

    count: int
    started: int = 0
    present: list[WorkerProcess] = field(default_factory=list)

    def keep_up(self, cluster: Cluster) -> None:
        """Starts those that are missing."""
        self.present = [worker for worker in self.present if worker in cluster.workers]
        while len(self.present) < self.count:
            self.started += 1
            clock = skewed_clock(cluster.root / "skewed-clock.so", ahead=self.started % 2 == 1)
            self.present.append(cluster.start_worker(environment=clock))


@dataclass(kw_only=True)
class SmallSpool:
    """The API's disk for uploads: within the block a tmpfs of 64 MiB, if it is to be filled. Mounting it takes root's
    rights.
    """

    directory: Path
    times_wanted: int
    times_filled: int = 0
    full_until: float = 0.0

    def __enter__(self) -> Self:
        if self.times_wanted:
            options = f"size={SPOOL_BYTES},mode=0700"
            subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", self.directory], check=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self.times_wanted:
            subprocess.run(["umount", "-l", self.directory], check=False)

    def keep_pace(self, chance: random.Random, *, share: float) -> None:
        """Fills it if this was done for less than this share of all times, and empties it after some seconds."""
        filler = self.directory / "filler"
        if self.full_until:
            if time.monotonic() >= self.full_until:
                filler.unlink()
                self.full_until = 0.0
        elif self.times_filled < self.times_wanted * min(share, 1.0):
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                while file.write(bytes(2**16)):
                    pass
            self.times_filled += 1
            self.full_until = time.monotonic() + chance.uniform(*FULL_SECONDS)

    def empty(self) -> None:
        (self.directory / "filler").unlink(missing_ok=True)
        self.full_until = 0.0
