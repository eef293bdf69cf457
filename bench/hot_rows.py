"""Claims and completions a second where all of them meet on few rows: two users with one long render each, and one.

    .venv/bin/python -m bench.hot_rows [--by pgbench workers] [--clients 8] [--seconds 6]

On PostgreSQL as a server is run (fsync and autovacuum on); nothing is computed. By pgbench: the statements of the
product's code, recorded from it, as fast as the database does them. By workers: each is a process that runs the
product's code, claims segments, and then reports them done; their Python takes a share of this machine's cores.
"""

import argparse
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.synchronize import Barrier
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import psycopg
from sqlalchemy import insert

from app.accounts.tables import User
from app.files.tables import File
from app.platform.database import Database, database_now
from app.platform.database_engine import PoolLimits
from app.renders.statuses import RenderStatus, SegmentStatus
from app.renders.tables import Render, Segment
from app.work.ledger import WorkLedger
from app.work.queries import Claim
from bench.claims import LEASE_SECONDS, _file, _render, _segment, make_ledger
from bench.cluster import DurablePostgres, as_sqlalchemy, percentile
from bench.pgbench import Recorder, Script, Statement, run_script, sampled_waits
from worker.registration import Registration

SEGMENTS_OF_A_RENDER = 12_000
# Ids and names are numbers, which pgbench can compute. No other value of a statement is as large.
WARM_UP = 10
FIRST_USER, FIRST_RENDER, FIRST_SEGMENT, FIRST_WORKER = (number * 1_000_000 for number in range(1, 5))


@dataclass(frozen=True, kw_only=True)
class Rate:
    """What all clients together did."""

    seconds: list[float]
    """Of each claim or completion."""
    a_second: float
    client_cpu_seconds: float
    database_cpu_seconds: float
    waits: dict[str, int]

    def __str__(self) -> str:
        each = (
            *(percentile(self.seconds, share) for share in (0.5, 0.99)),
            self.client_cpu_seconds / len(self.seconds),
            self.database_cpu_seconds / len(self.seconds),
        )
        samples = sum(self.waits.values()) or 1
        shares = (self.waits.get(kind, 0) / samples for kind in ("Lock", "disk"))
        return " | ".join(
            [
                f"{self.a_second:.0f}",
                *(f"{1000 * seconds:.1f} ms" for seconds in each),
                *(f"{share:.0%}" for share in shares),
            ]
        )


def fill(database: Database, *, users: int, are_running: bool = False) -> None:
    """Each user has one render of two hours, all of it waiting, or running."""
    at = datetime.now(UTC)
    owners = [
        {"id": str(FIRST_USER + number), "name": f"user {number}", "created_at": at}
        for number in range(users)
    ]
    files = [_file(str(owner["id"]), at) for owner in owners]
    renders = [
        {
            **_render(file["user_id"], file["id"], RenderStatus.PROCESSING, at),
            "id": str(FIRST_RENDER + number),
        }
        for number, file in enumerate(files)
    ]
    status = SegmentStatus.RUNNING if are_running else SegmentStatus.WAITING
    held = {"attempt": 1, "worker": "0", "lease_expires_at": database_now(plus_seconds=LEASE_SECONDS)}
    segments: list[dict[str, Any]] = [
        {
            **_segment(
                renders[number // SEGMENTS_OF_A_RENDER]["id"], number % SEGMENTS_OF_A_RENDER, status, at
            ),
            "id": str(FIRST_SEGMENT + number),
        }
        for number in range(users * SEGMENTS_OF_A_RENDER)
    ]
    with database.write() as session:
        for table, rows in ((User, owners), (File, files), (Render, renders)):
            session.execute(insert(table), rows)
        session.execute(insert(Segment).values(held) if are_running else insert(Segment), segments)
    with database.connect(to_write=True) as connection:
        connection.exec_driver_sql("ANALYZE")
        connection.commit()


def make_worker(database: Database, number: int) -> WorkLedger:
    """With a row among the workers, as all have."""
    ledger = make_ledger(database, number)
    ledger.worker = str(FIRST_WORKER + number)
    Registration(ledger, device="cpu").beat()
    return ledger


def database_cpu(server: DurablePostgres) -> float:
    """The processor time of the server's processes, those that have ended among them."""
    postmaster = (server.directory / "data" / "postmaster.pid").read_text().split()[0]

    def ticks(pid: str, fields: slice) -> int:
        return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[fields]))

    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    whole = ticks(postmaster, slice(13, 15)) + sum(ticks(child, slice(11, 13)) for child in children)
    return whole / os.sysconf("SC_CLK_TCK")


def children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class ByPgbench:
    """Rates of recorded statements."""

    def __init__(self, server: DurablePostgres, *, users: int, clients: int, seconds: float) -> None:
        self._server, self._users, self._clients, self._seconds = server, users, clients, seconds

    def measure(self) -> tuple[Rate, Rate]:
        """Claims, then completions."""
        claim, complete = self._scripts(self._filled(are_running=False))
        return self._run(claim, are_running=False), self._run(complete, are_running=True)

    def _filled(self, *, are_running: bool) -> str:
        url = self._server.create_migrated()
        database = Database(as_sqlalchemy(url))
        fill(database, users=self._users, are_running=are_running)
        for number in range(self._clients):
            make_worker(database, number)
        database.close()
        return url

    def _scripts(self, url: str) -> tuple[Script, Script]:
        recorder = Recorder(self._server, url)
        database = Database(as_sqlalchemy(url))
        ledger = make_worker(database, 0)
        claims = [ledger.claim()]
        free = recorder.record(lambda: claims.append(ledger.claim()))
        locked = recorder.record_while_locked("users", ledger.claim)
        job = claims.pop()
        assert job is not None and job.segment_id is not None
        done = recorder.record(lambda: ledger.segment_done(job, storage_key="renders/x/segments/y"))
        database.close()
        recorder.end()
        return self._claim_script(free, locked), self._completion_script(done, job.render_id, job.segment_id)

    def _claim_script(self, free: list[Statement], locked: list[Statement]) -> Script:
        users, renders, segments = (
            {str(first + number): name for number in range(count)}
            for first, count, name in (
                (FIRST_USER, self._users, "turn_id"),
                (FIRST_RENDER, self._users, "claim_render_id"),
                (FIRST_SEGMENT, SEGMENTS_OF_A_RENDER * self._users, "claim_id"),
            )
        )
        script = Script({**users, **renders, **segments, str(FIRST_WORKER): "worker"})
        script.command(f"set worker {FIRST_WORKER} + :client_id")
        script.command("set turn_is_capped NULL")
        turn = _position(free, "RETURNING users.id")
        for statement in free[:turn]:
            script.send(statement)
        script.send(free[turn], end="\\aset turn_")
        # The rows of all users were locked: the product's code chooses one of them and waits.
        script.command("if :turn_is_capped is null")
        script.command(f"set turn_id random({FIRST_USER}, {FIRST_USER + self._users - 1})")
        first = _position(locked, "RETURNING users.id")
        second = first + 1 + _position(locked[first + 1 :], "RETURNING users.id")
        for statement in locked[first + 1 : second]:
            script.send(statement)
        script.send(locked[second], end="\\gset turn_")
        script.command("endif")
        claim = _position(free, "RETURNING segments.id")
        for statement in free[turn + 1 : claim]:
            script.send(statement)
        script.send(free[claim], end="\\gset claim_")
        for statement in free[claim + 1 :]:
            script.send(statement)
        return script

    def _completion_script(self, done: list[Statement], render_id: str, segment_id: str) -> Script:
        stripe = self._users * SEGMENTS_OF_A_RENDER // self._clients
        script = Script({str(FIRST_WORKER): "worker", render_id: "render", segment_id: "segment"})
        script.command(f"set worker {FIRST_WORKER} + :client_id")
        script.command(f"set number :client_id * {stripe} + :i")
        script.command("set i :i + 1")
        script.command(f"set segment {FIRST_SEGMENT} + :number")
        script.command(f"set render {FIRST_RENDER} + :number / {SEGMENTS_OF_A_RENDER}")
        for statement in done:
            script.send(statement)
        return script

    def _run(self, script: Script, *, are_running: bool) -> Rate:
        url = self._filled(are_running=are_running)
        began, cpu = database_cpu(self._server), children_cpu()
        with tempfile.TemporaryDirectory() as directory, sampled_waits(self._server, url) as waits:
            ran = run_script(
                self._server,
                url,
                script,
                clients=self._clients,
                seconds=self._seconds,
                directory=Path(directory),
            )
        after = SegmentStatus.DONE if are_running else SegmentStatus.RUNNING
        with psycopg.connect(url) as connection:
            query = "SELECT count(*) FROM segments WHERE status = %s"
            row = connection.execute(query, [after.value]).fetchone()
        # Each did what it stands for, and no two the same.
        assert row is not None and row[0] == len(ran.seconds), (row, len(ran.seconds))
        return Rate(
            seconds=ran.seconds,
            a_second=ran.a_second,
            client_cpu_seconds=children_cpu() - cpu,
            database_cpu_seconds=database_cpu(self._server) - began,
            waits=waits,
        )


def _position(statements: list[Statement], words: str) -> int:
    return next(number for number, statement in enumerate(statements) if words in statement.sql)


def _work(url: str, number: int, seconds: float, start: Barrier, answers: "SimpleQueue[object]") -> None:
    database = Database(url, pool=PoolLimits(size=3))
    ledger = make_worker(database, number)
    claims: list[Claim] = []
    # Statements are compiled, and prepared.
    for _ in range(WARM_UP):
        _claim(ledger.claim, claims)
    for _ in range(WARM_UP):
        _complete(ledger.segment_done, claims)
    for act in (lambda: _claim(ledger.claim, claims), lambda: _complete(ledger.segment_done, claims)):
        taken: list[float] = []
        start.wait()
        cpu = time.process_time()
        until = time.monotonic() + seconds
        while (began := time.monotonic()) < until and act():
            taken.append(time.monotonic() - began)
        answers.put((taken, time.process_time() - cpu))
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


def measure_workers(
    server: DurablePostgres, *, users: int, clients: int, seconds: float
) -> tuple[Rate, Rate]:
    """Claims, then completions, by the product's code."""
    database = Database(url := as_sqlalchemy(server.create_migrated()))
    fill(database, users=users)
    database.close()
    context = multiprocessing.get_context("fork")
    start, answers = context.Barrier(clients + 1), context.SimpleQueue()
    processes = [
        context.Process(target=_work, args=(url, number, seconds, start, answers))
        for number in range(clients)
    ]
    for process in processes:
        process.start()
    rates = []
    for _ in range(2):
        start.wait()
        began, cpu = time.monotonic(), database_cpu(server)
        with sampled_waits(server, url) as waits:
            found = [answers.get() for _ in processes]
        whole = time.monotonic() - began
        taken = [each for one, _ in found for each in one]
        rates.append(
            Rate(
                seconds=taken,
                a_second=len(taken) / min(whole, seconds),
                client_cpu_seconds=sum(cpu for _, cpu in found),
                database_cpu_seconds=database_cpu(server) - cpu,
                waits=waits,
            )
        )
    for process in processes:
        process.join()
    return rates[0], rates[1]


def main() -> None:
    parser = argparse.ArgumentParser(description="Claims and completions a second on few rows.")
    parser.add_argument("--by", choices=("pgbench", "workers"), nargs="+", default=["pgbench", "workers"])
    parser.add_argument("--clients", type=int, nargs="+", default=[8])
    parser.add_argument("--seconds", type=float, default=6.0)
    options = parser.parse_args()
    server = DurablePostgres()
    print(
        "| by | users with one render each | clients | what | a second | p50 | p99 | of a client's processor | "
        "of the database's | waiting for a lock | for the disk |\n|---|---|---|---|---|---|---|---|---|---|---|"
    )
    try:
        server.start()
        for by in options.by:
            for users in (2, 1):
                for clients in options.clients:
                    how: dict[str, Any] = {"users": users, "clients": clients, "seconds": options.seconds}
                    rates = (
                        ByPgbench(server, **how).measure()
                        if by == "pgbench"
                        else measure_workers(server, **how)
                    )
                    for what, rate in zip(("claims", "completions"), rates, strict=True):
                        print(f"| {by} | {users} | {clients} | {what} | {rate} |", flush=True)
    finally:
        server.close()


if __name__ == "__main__":
    main()
