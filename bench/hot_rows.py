"""Claims and completions a second where all of them meet on few rows: two users with one long render each, and one.

    .venv/bin/python -m bench.hot_rows [--workers 8] [--seconds 6]

On PostgreSQL as a server is run (fsync and autovacuum on). Each worker is a process that claims segments, and then
reports them done, one after the other; nothing is computed. The processor time of both sides tells what is left to gain
where workers have machines of their own.
"""

import argparse
import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.synchronize import Barrier
from pathlib import Path
from queue import SimpleQueue

from sqlalchemy import insert

from app.accounts.tables import User
from app.files.tables import File
from app.platform.database import Database
from app.platform.database_engine import PoolLimits
from app.platform.secrets import new_id
from app.renders.statuses import RenderStatus, SegmentStatus
from app.renders.tables import Render, Segment
from app.work.queries import Claim
from bench.claims import _file, _render, _segment, make_ledger
from bench.cluster import DurablePostgres, as_sqlalchemy, percentile

SEGMENTS_OF_A_RENDER = 12_000


@dataclass(frozen=True, kw_only=True)
class Rate:
    """What all workers together did."""

    a_second: float
    p50_seconds: float
    p99_seconds: float
    worker_cpu_seconds: float
    """Of one worker, for each."""
    database_cpu_seconds: float

    def __str__(self) -> str:
        seconds = (self.p50_seconds, self.p99_seconds, self.worker_cpu_seconds, self.database_cpu_seconds)
        return " | ".join([f"{self.a_second:.0f}", *(f"{1000 * each:.1f} ms" for each in seconds)])


def fill(database: Database, *, users: int) -> None:
    """Each user has one render of two hours, all of it waiting."""
    at = datetime.now(UTC)
    owners = [{"id": new_id(), "name": f"user {number}", "created_at": at} for number in range(users)]
    files = [_file(str(owner["id"]), at) for owner in owners]
    renders = [_render(file["user_id"], file["id"], RenderStatus.PROCESSING, at) for file in files]
    segments = [
        _segment(render["id"], position, SegmentStatus.WAITING, at)
        for render in renders
        for position in range(SEGMENTS_OF_A_RENDER)
    ]
    with database.write() as session:
        for table, rows in ((User, owners), (File, files), (Render, renders), (Segment, segments)):
            session.execute(insert(table), rows)
    with database.connect(to_write=True) as connection:
        connection.exec_driver_sql("ANALYZE")
        connection.commit()


def _work(url: str, number: int, seconds: float, start: Barrier, answers: "SimpleQueue[object]") -> None:
    database = Database(url, pool=PoolLimits(size=3))
    ledger = make_ledger(database, number)
    claims: list[Claim] = []
    # The first time statements are compiled.
    _claim(ledger.claim, claims)
    _complete(ledger.segment_done, claims)
    for act in (lambda: _claim(ledger.claim, claims), lambda: _complete(ledger.segment_done, claims)):
        taken: list[float] = []
        start.wait()
        cpu = time.process_time()
        until = time.monotonic() + seconds
        while (began := time.monotonic()) < until and act():
            taken.append(time.monotonic() - began)
        answers.put((taken, time.process_time() - cpu))
    # The database's side is read while its processes live.
    start.wait()
    database.close()


def _claim(claim: Callable[[], Claim | None], claims: list[Claim]) -> bool:
    job = claim()
    if job is not None:
        claims.append(job)
    return job is not None


def _complete(segment_done: Callable[..., object], claims: list[Claim]) -> bool:
    if claims:
        segment_done(claims.pop(), storage_key="renders/x/segments/y")
        return True
    return False


def cpu_seconds_of_children(pid: int) -> float:
    """The processor time of the processes that this one has now."""
    ticks = 0
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        ticks += sum(map(int, Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def measure(url: str, postgres: int, *, workers: int, seconds: float) -> tuple[Rate, Rate]:
    """Claims, then completions. `postgres` is the process id of the server."""
    context = multiprocessing.get_context("fork")
    start, answers = context.Barrier(workers + 1), context.SimpleQueue()
    processes = [
        context.Process(target=_work, args=(url, number, seconds, start, answers))
        for number in range(workers)
    ]
    for process in processes:
        process.start()
    rates = []
    for _ in range(2):
        start.wait()
        began, database_cpu = time.monotonic(), cpu_seconds_of_children(postgres)
        found = [answers.get() for _ in processes]
        whole = time.monotonic() - began
        taken = [each for one, _ in found for each in one]
        rates.append(
            Rate(
                a_second=len(taken) / min(whole, seconds) if taken else 0.0,
                p50_seconds=percentile(taken, 0.5),
                p99_seconds=percentile(taken, 0.99),
                worker_cpu_seconds=sum(cpu for _, cpu in found) / len(taken),
                database_cpu_seconds=(cpu_seconds_of_children(postgres) - database_cpu) / len(taken),
            )
        )
    start.wait()
    for process in processes:
        process.join()
    return rates[0], rates[1]


def main() -> None:
    parser = argparse.ArgumentParser(description="Claims and completions a second on few rows.")
    parser.add_argument("--workers", type=int, nargs="+", default=[8])
    parser.add_argument("--seconds", type=float, default=6.0)
    options = parser.parse_args()
    server = DurablePostgres()
    print(
        "| users with one render each | workers | what | a second | p50 | p99 | of a worker's processor | "
        "of the database's |\n|---|---|---|---|---|---|---|---|"
    )
    try:
        server.start()
        server_pid = int((server.directory / "data" / "postmaster.pid").read_text().split()[0])
        for users in (2, 1):
            for workers in options.workers:
                database = Database(url := as_sqlalchemy(server.create_migrated()))
                fill(database, users=users)
                database.close()
                claims, completions = measure(url, server_pid, workers=workers, seconds=options.seconds)
                print(f"| {users} | {workers} | claims | {claims} |", flush=True)
                print(f"| {users} | {workers} | completions | {completions} |", flush=True)
    finally:
        server.close()


if __name__ == "__main__":
    main()
