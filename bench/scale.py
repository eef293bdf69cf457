"""What many workers cost each other: 1, 2, 4, 8 worker processes over PostgreSQL, Redis and local storage.

    .venv/bin/python -m bench.scale [--workers 1 2 4 8]

The stand-in network sleeps for a fixed time per frame, as a GPU would compute, so that a worker needs little of this
machine's CPU. The same video time is rendered once as one render and once as many. Prints tables.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from app.platform.media.programs import find_programs
from bench.cluster import Cluster, WorkerProcess, percentile
from bench.counting import Counts, count

SIZE = "64x48"
RATE = 25
SEGMENT_SECONDS = 3
SECONDS_PER_FRAME = 0.04
NETWORK_SECONDS = SEGMENT_SECONDS * RATE * SECONDS_PER_FRAME
SEGMENTS = 24
RENDERS = 12
IDLE_SECONDS = 20.0
# Within one worker, one unit follows the other at once; a longer pause is one in which it had nothing to do.
IDLE_GAP_SECONDS = 0.25


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One workload. Seconds; `gaps` are those between the end of a unit and the start of its worker's next."""

    whole_seconds: float
    upscaling_seconds: float
    unit_seconds: list[float]
    gaps: list[float]
    busy_seconds: float
    counts: Counts
    cpu_share: float
    """How busy all of this machine's cores were, with whatever else ran on it."""


def cpu_seconds() -> tuple[float, float]:
    """Busy and all seconds of the machine's cores since its start."""
    user, nice, system, idle, wait, *rest = map(
        int, Path("/proc/stat").read_text().split("\n")[0].split()[1:8]
    )
    busy = user + nice + system + sum(rest)
    return busy, busy + idle + wait


def make_clip(path: Path, *, segments: int) -> Path:
    source = f"testsrc2=size={SIZE}:rate={RATE}:duration={segments * SEGMENT_SECONDS}"
    subprocess.run(
        [
            *(find_programs().ffmpeg, "-v", "error", "-f", "lavfi", "-i", source, "-pix_fmt", "yuv420p"),
            *("-preset", "ultrafast", path),
        ],
        check=True,
    )
    return path


def measure(cluster: Cluster, clips: list[Path]) -> Measured:
    """Render them all at once."""
    before, cpu_before = count(cluster), cpu_seconds()
    started_at = time.time()
    submitted = [cluster.user.submit(clip)["id"] for clip in clips]
    while cluster.statuses(submitted) != {"completed"}:
        assert "failed" not in cluster.statuses(submitted)
        time.sleep(0.05)
    whole_seconds = time.time() - started_at
    counts = count(cluster) - before
    busy, whole = (after - earlier for after, earlier in zip(cpu_seconds(), cpu_before, strict=True))
    unit_seconds, gaps, starts, ends, busy_seconds = [], [], [], [], 0.0
    for worker in cluster.workers:
        units = _units(worker, since=started_at)
        for line, started, ended in units:
            busy_seconds += ended - started
            if line["kind"] == "upscale":
                unit_seconds.append(ended - started)
                starts.append(started)
                ends.append(ended)
        gaps += [following[1] - unit[2] for unit, following in pairwise(units)]
    return Measured(
        whole_seconds=whole_seconds,
        upscaling_seconds=max(ends) - min(starts),
        unit_seconds=unit_seconds,
        gaps=gaps,
        busy_seconds=busy_seconds,
        counts=counts,
        cpu_share=busy / whole,
    )


def _units(worker: WorkerProcess, *, since: float) -> list[tuple[dict[str, Any], float, float]]:
    """Start and end of every unit that the worker has done since then, by its log."""
    lines = [line for line in worker.lines("work_started", "work_done") if _at(line) >= since]
    return [
        (start, _at(start), _at(end))
        for start, end in pairwise(lines)
        if (start["event"], end["event"]) == ("work_started", "work_done")
    ]


def _at(line: dict[str, Any]) -> float:
    return datetime.fromisoformat(line["timestamp"]).timestamp()


def row(name: str, workers: int, seen: Measured) -> str:
    ideal = SEGMENTS * NETWORK_SECONDS / workers
    claims = [gap for gap in seen.gaps if gap < IDLE_GAP_SECONDS]
    idle = [gap for gap in seen.gaps if gap >= IDLE_GAP_SECONDS]
    beyond = sum(seen.unit_seconds) / len(seen.unit_seconds) - NETWORK_SECONDS
    return (
        f"| {name} | {workers} | {seen.whole_seconds:.1f} s | {ideal / seen.whole_seconds:.0%} | "
        f"{ideal / seen.upscaling_seconds:.0%} | {beyond:.2f} s | "
        f"{1000 * percentile(claims, 0.5):.0f} / {1000 * percentile(claims, 0.99):.0f} ms | "
        f"{len(idle)}, {sum(idle):.1f} s | {seen.counts.statements / SEGMENTS:.0f} | "
        f"{seen.counts.transactions / SEGMENTS:.0f} | {seen.counts.redis_commands / SEGMENTS:.1f} | "
        f"{seen.cpu_share:.0%} |"
    )


def idle_row(cluster: Cluster) -> str:
    before = count(cluster)
    time.sleep(IDLE_SECONDS)
    idle = count(cluster) - before
    per_worker = IDLE_SECONDS * len(cluster.workers)
    return (
        f"| {len(cluster.workers)} | {idle.statements / per_worker:.2f} | {idle.transactions / per_worker:.2f} | "
        f"{idle.database_seconds / per_worker * 1000:.2f} ms | {idle.redis_commands / per_worker:.2f} | "
        f"{count(cluster).connections} | {count(cluster).redis_clients} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="What many workers cost each other.")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    options = parser.parse_args()
    rows, idle_rows = [], []
    settings = {
        "stand_in_seconds_per_frame": str(SECONDS_PER_FRAME),
        "segment_seconds": str(SEGMENT_SECONDS),
    }
    with Cluster(**settings) as cluster, tempfile.TemporaryDirectory(prefix="regen-clips-") as clip_directory:
        directory = Path(clip_directory)
        one = make_clip(directory / "one.mp4", segments=SEGMENTS)
        part = make_clip(directory / "part.mp4", segments=SEGMENTS // RENDERS)
        for workers in sorted(options.workers):
            while len(cluster.workers) < workers:
                cluster.start_worker()
            cluster.wait_ready()
            for name, clips in (("one", [one]), (f"{RENDERS}", [part] * RENDERS)):
                rows.append(row(name, workers, measure(cluster, clips)))
                print(rows[-1], file=sys.stderr, flush=True)
            idle_rows.append(idle_row(cluster))
            print(idle_rows[-1], file=sys.stderr, flush=True)
        cluster.stop_workers()
    print(
        "| renders | workers | wall | of ideal | upscaling alone, of ideal | beyond the network, per segment | "
        "from unit to unit, p50 / p99 | idle pauses | statements per segment | transactions per segment | "
        "Redis commands per segment | the machine's cores busy |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    print("\n".join(rows))
    print(
        "\n| idle workers | statements/s each | transactions/s each | database time/s each | Redis commands/s each | "
        "connections to PostgreSQL | to Redis |"
    )
    print("|---|---|---|---|---|---|---|")
    print("\n".join(idle_rows))


if __name__ == "__main__":
    main()
