"""Whether anything is lost when workers are killed all the time: a soak through the real HTTP API.

    .venv/bin/python -m bench.chaos --renders 100 --kills 200 --workers 4

Submits short clips to an API process over PostgreSQL, Redis and local storage or S3, and meanwhile kills workers at
random moments, freezes some for longer than a lease, and when asked to kills and freezes their ffmpegs, breaks one
worker's for good, has some with wrong clocks, fills the API's disk for uploads, and restarts Redis and PostgreSQL.
A thousand kills, in some 25 minutes on two cores (as root, for the disk):

    .venv/bin/python -m bench.chaos --renders 120 --kills 400 --encoder-strikes 800 --workers 4 --kill-pauses 0.1 0.8 \\
        --skewed-clocks 2 --full-spools 10 --redis-restarts 4 --database-restarts 4

Afterwards every output is read back and compared with its input. Prints a table; the exit status is 1 when a render was
lost, failed, was completed twice or is wrong.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from app.platform.media.programs import find_programs
from bench.cluster import Cluster, WorkerProcess, leftovers
from bench.encoders import BROKEN_MACHINE, EncoderStrikes, write_broken_program
from bench.inspection import Inspection, inspect
from bench.machine_faults import KEEP_FREE_BYTES, SkewedWorkers, SmallSpool

MEDIA = Path(__file__).parents[1] / "tests" / "media"
# Real pictures and sound, made small: what is soaked is everything but the pixels.
CLIPS = {"bunny-240x136-25fps.mp4": "96:56", "webb-320x180-25fps.mp4": "112:64"}
LEASE_SECONDS = 3
# A frozen worker is away for longer than its lease.
FREEZE_SECONDS = (LEASE_SECONDS + 1.0, 2 * LEASE_SECONDS + 1.0)
FREEZE_SHARE = 0.15
# So many renders are unfinished at a time, so that there is something to kill.
BACKLOG = 8
END_SECONDS = 600.0
ENDED = ("completed", "failed")


@dataclass(kw_only=True)
class Soak:
    """What was done to the cluster, and what it had accepted."""

    accepted: dict[str, Path] = field(default_factory=dict)
    statuses: dict[str, str] = field(default_factory=dict)
    refusals: int = 0
    polls_failed: int = 0
    kills: int = 0
    kills_at_work: Counter[str] = field(default_factory=Counter)
    freezes: int = 0
    restarts: Counter[str] = field(default_factory=Counter)
    ended_by_themselves: int = 0
    frozen: dict[int, tuple[WorkerProcess, float]] = field(default_factory=dict)
    encoders: EncoderStrikes = field(default_factory=EncoderStrikes)
    skewed: SkewedWorkers
    spool: SmallSpool
    broken: WorkerProcess | None = None

    @property
    def ended(self) -> int:
        return sum(1 for status in self.statuses.values() if status in ENDED)

    @property
    def unfinished(self) -> int:
        return len(self.accepted) - self.ended


def make_clips(directory: Path) -> list[Path]:
    clips = [directory / name for name in CLIPS]
    for clip in clips:
        subprocess.run(
            [
                *(find_programs().ffmpeg, "-v", "error", "-i", MEDIA / clip.name, "-t", "2"),
                *("-vf", f"scale={CLIPS[clip.name]}", "-c:a", "copy", clip),
            ],
            check=True,
        )
    return clips


def submit(cluster: Cluster, soak: Soak, clip: Path) -> None:
    """A refusal with Retry-After is no loss: the client was told, and asks again."""
    with clip.open("rb") as body:
        try:
            answer = cluster.user.client.post("/v1/upscale", files={"file": (clip.name, body)})
        except httpx.HTTPError:
            soak.refusals += 1
            return
    if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        soak.refusals += 1
        return
    assert answer.status_code == httpx.codes.OK, answer.text
    soak.accepted[answer.json()["render"]["id"]] = clip


def poll(cluster: Cluster, soak: Soak) -> None:
    for render_id in soak.accepted:
        if soak.statuses.get(render_id) not in ENDED:
            try:
                answer = cluster.user.client.get(f"/v1/renders/{render_id}")
            except httpx.HTTPError:
                soak.polls_failed += 1
                continue
            if answer.status_code == httpx.codes.OK:
                soak.statuses[render_id] = answer.json()["render"]["status"]
            else:
                soak.polls_failed += 1


def kill(cluster: Cluster, soak: Soak, worker: WorkerProcess) -> None:
    cluster.kill_worker(worker)
    soak.frozen.pop(worker.process.pid, None)
    soak.kills += 1
    # Nobody renews what a dead worker held: for a lease the rows still say what that was.
    held = cluster.query(
        "SELECT CASE WHEN work_lease_expires_at IS NULL THEN NULL WHEN status = 'pending' THEN 'prepare' "
        "ELSE 'finish' END FROM renders WHERE worker = %s "
        "UNION ALL SELECT 'upscale' FROM segments WHERE worker = %s AND status = 'running'",
        worker.name,
        worker.name,
    )
    soak.kills_at_work.update(kind for (kind,) in held if kind is not None)
    replace(cluster, soak, worker)


def replace(cluster: Cluster, soak: Soak, worker: WorkerProcess) -> None:
    """Starts one like the worker, which has ended."""
    if worker not in soak.skewed.present:
        cluster.start_worker()
    soak.skewed.keep_up(cluster)


def replace_ended(cluster: Cluster, soak: Soak) -> None:
    """As a supervisor does."""
    for worker in [worker for worker in cluster.workers if worker.process.status is not None]:
        tell(f"a worker ended with {worker.process.status}:\n{worker.process.tail()[-2000:]}")
        soak.ended_by_themselves += 1
        cluster.forget_worker(worker)
        replace(cluster, soak, worker)


def thaw(soak: Soak, *, everyone: bool = False) -> None:
    for pid, (worker, until) in list(soak.frozen.items()):
        if everyone or time.monotonic() >= until:
            worker.process.send_signal(signal.SIGCONT)
            del soak.frozen[pid]


def strike(cluster: Cluster, soak: Soak, chance: random.Random) -> None:
    """Kill or freeze one of the workers that are up."""
    ready = [worker for worker in cluster.workers if worker.name is not None and worker is not soak.broken]
    if not ready:
        return
    worker = chance.choice(ready)
    if worker.process.pid not in soak.frozen and chance.random() < FREEZE_SHARE:
        worker.process.send_signal(signal.SIGSTOP)
        soak.frozen[worker.process.pid] = (worker, time.monotonic() + chance.uniform(*FREEZE_SECONDS))
        soak.freezes += 1
    else:
        kill(cluster, soak, worker)


def restart(cluster: Cluster, soak: Soak, wanted: dict[str, int], *, kills: int) -> None:
    """Servers are restarted evenly over the whole of it."""
    for name, server in (("Redis", cluster.broker), ("PostgreSQL", cluster.postgres)):
        if soak.restarts[name] < wanted[name] * soak.kills // kills:
            server.restart()
            soak.restarts[name] += 1


def start(cluster: Cluster, soak: Soak, options: argparse.Namespace) -> None:
    for _number in range(options.workers):
        cluster.start_worker()
    if options.broken_node:
        program = cluster.root / "ffmpeg"
        write_broken_program(program)
        soak.broken = cluster.start_worker(machine=BROKEN_MACHINE, ffmpeg=str(program), sandbox="off")
    soak.skewed.keep_up(cluster)
    cluster.wait_ready()


def run(cluster: Cluster, options: argparse.Namespace, clips: list[Path], spool: SmallSpool) -> Soak:
    chance = random.Random(options.seed)
    soak = Soak(skewed=SkewedWorkers(count=options.skewed_clocks), spool=spool)
    wanted = {"Redis": options.redis_restarts, "PostgreSQL": options.database_restarts}
    start(cluster, soak, options)
    strike_at = time.monotonic()
    deadline = float("inf")
    while True:
        # Work goes on until there were enough renders and enough kills.
        strikes_left = options.encoder_strikes - soak.encoders.done.total()
        if soak.kills < options.kills or strikes_left > 0 or len(soak.accepted) < options.renders:
            if soak.unfinished < BACKLOG:
                submit(cluster, soak, chance.choice(clips))
        elif deadline == float("inf"):
            thaw(soak, everyone=True)
            soak.encoders.thaw(everyone=True)
            soak.spool.empty()
            deadline = time.monotonic() + END_SECONDS
        poll(cluster, soak)
        if deadline < float("inf") and (soak.unfinished == 0 or time.monotonic() > deadline):
            return soak
        thaw(soak)
        soak.encoders.thaw()
        if deadline == float("inf"):
            share = (soak.ended + BACKLOG // 2) / options.renders
            soak.encoders.keep_pace(cluster, chance, options.encoder_strikes, share=share)
            soak.spool.keep_pace(chance, share=share)
        replace_ended(cluster, soak)
        # Kills keep pace with the renders that ended: they shall hit all of them, not the first few over and over.
        due = options.kills * (soak.ended + BACKLOG // 2) // options.renders
        if soak.kills < min(due, options.kills) and time.monotonic() >= strike_at:
            strike(cluster, soak, chance)
            restart(cluster, soak, wanted, kills=options.kills)
            strike_at = time.monotonic() + chance.uniform(*options.kill_pauses)
            if soak.kills % 20 == 0:
                tell(f"{soak.kills} kills, {len(soak.accepted)} renders, {soak.unfinished} unfinished")
        time.sleep(0.1)


def tell(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def report(soak: Soak, seen: Inspection, *, wall_seconds: float) -> list[tuple[str, str]]:
    at_work = sum(soak.kills_at_work.values())
    kinds = ", ".join(f"{kind} {number}" for kind, number in sorted(soak.kills_at_work.items()))
    return [
        ("renders accepted", f"{len(soak.accepted)}"),
        ("submissions refused (and made again)", f"{soak.refusals}"),
        ("polls that were not answered 200", f"{soak.polls_failed}"),
        ("renders completed", f"{seen.completed}"),
        ("renders failed", f"{len(seen.failed)}"),
        ("renders lost", f"{len(soak.accepted) - seen.completed - len(seen.failed)}"),
        ("rows without an accepted render", f"{seen.unknown_renders}"),
        ("renders completed twice", f"{seen.completed_twice}"),
        ("workers killed (SIGKILL)", f"{soak.kills}"),
        ("of these with a unit in hand", f"{at_work} ({kinds})"),
        ("workers frozen for longer than a lease", f"{soak.freezes}"),
        ("ffmpegs killed / frozen", f"{soak.encoders.done['killed']} / {soak.encoders.done['frozen']}"),
        ("the worker with a broken ffmpeg", _fate(soak.broken)),
        ("workers that ended by themselves", f"{soak.ended_by_themselves}"),
        ("workers with a skewed clock, in all", f"{soak.skewed.started}"),
        ("times that the disk for uploads was full", f"{soak.spool.times_filled}"),
        ("renders that end before they begin", f"{seen.backwards}"),
        ("Redis / PostgreSQL restarted", f"{soak.restarts['Redis']} / {soak.restarts['PostgreSQL']}"),
        ("segments", f"{seen.segments}"),
        ("segments claimed again, per kill", f"{seen.segments_again / max(1, soak.kills):.2f}"),
        ("most attempts of one segment", f"{seen.most_attempts}"),
        ("outputs with the input's timestamps", f"{seen.right_timestamps} of {seen.completed}"),
        ("frames decoded", f"{seen.frames:,}"),
        ("outputs with wrong frames", f"{len(seen.wrong)}"),
        ("worst frame beside its input", f"{seen.worst_decibels:.1f} dB"),
        ("objects in storage that no row names, before the clean-up", describe(seen.orphans)),
        ("after it", describe(seen.orphans_after_clean_up)),
        ("processes left by the killed", f"{seen.processes_left}"),
        ("workers' exit statuses at the end", ", ".join(map(str, seen.exit_statuses))),
        ("wall time", f"{wall_seconds:.0f} s"),
    ]


def _fate(broken: WorkerProcess | None) -> str:
    if broken is None:
        return "none"
    failed, quarantined = broken.lines("work_failed"), broken.lines("worker_quarantined")
    return f"failed {len(failed)} units, {'in quarantine' if quarantined else 'not in quarantine'}"


def describe(orphans: Counter[str]) -> str:
    return ", ".join(f"{kind} {number}" for kind, number in sorted(orphans.items())) or "none"


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Whether anything is lost when workers are killed all the time."
    )
    parser.add_argument("--renders", type=int, default=100)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument(
        "--kill-pauses", type=float, nargs=2, default=(0.4, 3.0), help="seconds between kills"
    )
    parser.add_argument(
        "--skewed-clocks", type=int, default=0, help="more workers, ten minutes ahead or behind"
    )
    parser.add_argument("--full-spools", type=int, default=0, help="how often uploads find the disk full")
    parser.add_argument("--encoder-strikes", type=int, default=0, help="ffmpegs to kill or freeze")
    parser.add_argument(
        "--broken-node", action="store_true", help="one more worker, whose ffmpeg cannot decode"
    )
    parser.add_argument("--redis-restarts", type=int, default=0)
    parser.add_argument("--database-restarts", type=int, default=0)
    parser.add_argument("--storage", choices=("local", "s3"), default="local")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    started_at = time.monotonic()
    settings = {"lease_seconds": str(LEASE_SECONDS), "segment_seconds": "0.5"}
    if options.full_spools:
        settings["min_free_disk_bytes"] = str(KEEP_FREE_BYTES)
    with (
        Cluster(storage=options.storage, **settings) as cluster,
        tempfile.TemporaryDirectory(prefix="regen-outputs-") as downloads,
        SmallSpool(directory=cluster.settings.spool_dir, times_wanted=options.full_spools) as spool,
    ):
        soak = run(cluster, options, make_clips(Path(downloads)), spool)
        wall_seconds = time.monotonic() - started_at
        seen = inspect(cluster, soak.accepted, Path(downloads))
        print("| | |\n|---|---|")
        for name, value in report(soak, seen, wall_seconds=wall_seconds):
            print(f"| {name} | {value} |")
        for render_id, sentence in {**seen.failed, **seen.wrong}.items():
            tell(f"{render_id}: {sentence}")
        lost = len(soak.accepted) - seen.completed
        clean = not (lost or seen.completed_twice or seen.wrong or seen.processes_left or seen.backwards)
    clean &= not leftovers(cluster.root)
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
