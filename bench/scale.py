"""What many workers cost each other: 1 to 64 worker processes over PostgreSQL, Redis and local storage.

    .venv/bin/python -m bench.scale [--workers 1 2 4 8] [--segments-per-worker 6] [--frames 75] [--frame-seconds 0.04]

The stand-in network sleeps for a fixed time per frame, as a GPU would compute, so that a worker needs little of this
machine's CPU: on few cores, many workers want long sleeps. The same video time is rendered once as one render and once
as many. Prints tables.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from app.platform.media.programs import find_programs
from bench.cluster import Cluster, WorkerProcess
from bench.counting import Counts, count

SIZE = "64x48"
RATE = 25
RENDERS = 12
IDLE_SECONDS = 20.0


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is rendered: segments of so many frames, each of which costs the network so long."""

    segments: int
    frames: int
    frame_seconds: float

    @property
    def network_seconds(self) -> float:
        return self.segments * self.frames * self.frame_seconds


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One workload."""

    whole_seconds: float
    upscaling_seconds: float
    counts: Counts
    busy: float
    """A segment was on the device for this share of the time from a worker's first frame to its last."""
    cpu_share: float
    """How busy all of this machine's cores were, with whatever else ran on it."""


def cpu_seconds() -> tuple[float, float]:
    """Busy and all seconds of the machine's cores since its start."""
    user, nice, system, idle, wait, *rest = map(
        int, Path("/proc/stat").read_text().split("\n")[0].split()[1:8]
    )
    busy = user + nice + system + sum(rest)
    return busy, busy + idle + wait


def make_clip(path: Path, *, frames: int) -> Path:
    source = f"testsrc2=size={SIZE}:rate={RATE}"
    subprocess.run(
        [
            *(find_programs().ffmpeg, "-v", "error", "-f", "lavfi", "-i", source, "-frames:v", str(frames)),
            *("-pix_fmt", "yuv420p", "-preset", "ultrafast", path),
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
    moments = [
        _at(line) for worker in cluster.workers for line in _segment_lines(worker) if _at(line) >= started_at
    ]
    shares = [share for worker in cluster.workers if (share := busy_share(worker, since=started_at))]
    return Measured(
        whole_seconds=whole_seconds,
        busy=sum(shares) / len(shares),
        upscaling_seconds=max(moments) - min(moments),
        counts=counts,
        cpu_share=busy / whole,
    )


def busy_share(worker: WorkerProcess, *, since: float) -> float | None:
    """See `Measured.busy`; None without two segments. Segments are on the device in the order of their claims."""
    claimed_at = {line["segment_id"]: _at(line) for line in _segment_lines(worker) if _at(line) >= since}
    ends = {line["segment_id"]: line for line in worker.lines("segment_upscaled")}
    first, freed, computed = None, 0.0, 0.0
    for segment_id, at in sorted(claimed_at.items(), key=lambda item: item[1]):
        if (end := ends.get(segment_id)) is not None:
            began = max(at, freed) + end["waited_seconds"]
            first = began if first is None else first
            freed = began + end["upscaling_seconds"]
            computed += end["upscaling_seconds"]
    return computed / (freed - first) if first is not None and len(claimed_at) > 1 else None


def _segment_lines(worker: WorkerProcess) -> list[dict[str, Any]]:
    """End and start of each segment that the worker has done, the last first, by its log."""
    lines = worker.lines("work_started", "work_done")[::-1]
    return [line for line in lines if line["kind"] == "upscale"]


def _at(line: dict[str, Any]) -> float:
    return datetime.fromisoformat(line["timestamp"]).timestamp()


def row(name: str, workers: int, load: Load, seen: Measured) -> str:
    ideal = load.network_seconds / workers
    return (
        f"| {name} | {workers} | {seen.whole_seconds:.1f} s | {ideal / seen.whole_seconds:.0%} | "
        f"{ideal / seen.upscaling_seconds:.0%} | {seen.busy:.0%} | {load.segments / seen.upscaling_seconds:.1f} | "
        f"{seen.counts.statements / load.segments:.0f} | {seen.counts.transactions / load.segments:.0f} | "
        f"{seen.counts.redis_commands / load.segments:.1f} | {seen.cpu_share:.0%} |"
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
    parser.add_argument("--segments-per-worker", type=int, default=6)
    parser.add_argument("--frames", type=int, default=75, help="of one segment")
    parser.add_argument("--frame-seconds", type=float, default=0.04)
    parser.add_argument("--one", action="store_true", help="one render alone, and no idle workers")
    options = parser.parse_args()
    rows, idle_rows = [], []
    settings = {
        "stand_in_seconds_per_frame": str(options.frame_seconds),
        "segment_seconds": f"{options.frames}/{RATE}",
    }
    with Cluster(**settings) as cluster, tempfile.TemporaryDirectory(prefix="regen-clips-") as clip_directory:
        directory = Path(clip_directory)
        for workers in sorted(options.workers):
            while len(cluster.workers) < workers:
                cluster.start_worker()
            cluster.wait_ready()
            segments = options.segments_per_worker * workers
            for name, number in (("one", 1), (f"{RENDERS}", RENDERS)):
                if number > 1 and options.one:
                    continue
                of_each = -(-segments // number)
                load = Load(
                    segments=of_each * number, frames=options.frames, frame_seconds=options.frame_seconds
                )
                clip = make_clip(directory / f"{name}-{workers}.mp4", frames=of_each * options.frames)
                rows.append(row(name, workers, load, measure(cluster, [clip] * number)))
                print(rows[-1], file=sys.stderr, flush=True)
            if not options.one:
                idle_rows.append(idle_row(cluster))
                print(idle_rows[-1], file=sys.stderr, flush=True)
        cluster.stop_workers()
    print(
        "| renders | workers | wall | of ideal | upscaling alone, of ideal | busy | segments a second | "
        "statements per segment | transactions per segment | Redis commands per segment | the machine's cores busy |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    print("\n".join(rows))
    if not idle_rows:
        return
    print(
        "\n| idle workers | statements/s each | transactions/s each | database time/s each | Redis commands/s each | "
        "connections to PostgreSQL | to Redis |"
    )
    print("|---|---|---|---|---|---|---|")
    print("\n".join(idle_rows))


if __name__ == "__main__":
    main()
