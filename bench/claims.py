"""What one claim costs when much is waiting: 1,000 queued renders and 10,000 waiting segments of 50 users.

    .venv/bin/python -m bench.claims

On PostgreSQL (fsync and autovacuum on, as a server is run) and on SQLite: time per claim and per sweep as a worker sees
it, from one thread and from several, and what the databases' planners say of the statements.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import delete, event, insert, text, update

from app import migrations
from app.accounts.tables import User
from app.files.tables import File
from app.platform.database import Database, database_now
from app.platform.database_engine import PoolLimits
from app.platform.secrets import new_id
from app.platform.work_kinds import WorkQueue
from app.renders.statuses import RenderStatus, SegmentStatus
from app.renders.tables import Render, Segment
from app.work.ledger import WorkLedger
from bench.cluster import DurablePostgres, as_sqlalchemy, percentile
from tests.servers.postgres import SUPERUSER
from worker.registration import Registration

USERS = 50
QUEUED = 1_000
SEGMENTS_OF_A_RENDER = 50
WAITING = 10_000
# What was rendered before, and is still in the tables.
PAST_RENDERS = 2_000
# Longer than the measurement: no lease runs out in it.
LEASE_SECONDS = 3600.0
WARM_UP = 20
CLAIMS = 300
SWEEPS = 40
THREADS = 8
# As long as a segment's plan of a hundred frames.
PLAN = json.dumps({"first_frame": 0, "timestamps": list(range(0, 51_200, 512))})
FACTS = {
    f"{side}_{fact}": value
    for side in ("input", "output")
    for fact, value in {
        "width": 1280,
        "height": 720,
        "frame_rate": Fraction(25),
        "duration_seconds": Fraction(200),
        "frames": 5000,
    }.items()
}


def fill(database: Database) -> None:
    """Users, their files, and renders in every state."""
    start = datetime.now(UTC) - timedelta(days=1)
    users: list[dict[str, Any]] = [
        {"id": new_id(), "name": f"user {number}", "created_at": start} for number in range(USERS)
    ]
    files = [_file(user["id"], start) for user in users]
    renders: list[dict[str, Any]] = []
    segments: list[dict[str, Any]] = []

    def add(number: int, status: RenderStatus, of: SegmentStatus | None = None) -> None:
        for _ in range(number):
            at = start + timedelta(seconds=len(renders))
            owner = len(renders) % USERS
            renders.append(_render(users[owner]["id"], files[owner]["id"], status, at))
            if of is not None:
                segments.extend(
                    _segment(renders[-1]["id"], position, of, at) for position in range(SEGMENTS_OF_A_RENDER)
                )

    add(PAST_RENDERS, RenderStatus.COMPLETED, SegmentStatus.DONE)
    add(WAITING // SEGMENTS_OF_A_RENDER, RenderStatus.PROCESSING, SegmentStatus.WAITING)
    add(QUEUED, RenderStatus.QUEUED)
    with database.write() as session:
        for table, rows in ((User, users), (File, files), (Render, renders), (Segment, segments)):
            session.execute(insert(table), rows)
    with database.connect(to_write=True) as connection:
        # What autovacuum does soon after so many rows.
        connection.execute(text("ANALYZE"))
        connection.commit()


def _file(user_id: str, at: datetime) -> dict[str, Any]:
    return {
        **{"id": new_id(), "user_id": user_id, "name": "clip.mp4", "content_type": "video/mp4"},
        **{"size_bytes": 1, "sha256": "0" * 64, "storage_key": "files/x/input", "width": 1280, "height": 720},
        **{"frame_rate": Fraction(25), "duration_seconds": Fraction(200), "frames": 5000, "created_at": at},
    }


def _render(user_id: str, file_id: str, status: RenderStatus, at: datetime) -> dict[str, Any]:
    return {
        **{"id": new_id(), "user_id": user_id, "file_id": file_id, "engine": "regen-4x-lite"},
        **{"status": status, "created_at": at, "warnings": [], "cost": 1.0, **FACTS},
        **{"ended_at": at if status.is_final else None},
    }


def _segment(render_id: str, position: int, status: SegmentStatus, at: datetime) -> dict[str, Any]:
    return {
        **{"id": new_id(), "render_id": render_id, "position": position, "status": status},
        **{"created_at": at, "plan": PLAN, "frames": 100},
    }


@contextmanager
def filled_postgresql() -> Iterator[Database]:
    server = DurablePostgres()
    try:
        server.start()
        url = server.create_migrated()
        # In this very database, where its owner may read it.
        with psycopg.connect(
            server.url(url.rpartition("/")[2], user=SUPERUSER), autocommit=True
        ) as connection:
            connection.execute("CREATE EXTENSION pg_stat_statements")
        database = Database(as_sqlalchemy(url), pool=PoolLimits(size=THREADS))
        fill(database)
        yield database
        database.close()
    finally:
        server.close()


@contextmanager
def filled_sqlite() -> Iterator[Database]:
    with tempfile.TemporaryDirectory(prefix="regen-claims-") as directory:
        database = Database(f"sqlite:///{Path(directory) / 'regen.db'}")
        migrations.upgrade(database)
        fill(database)
        yield database
        database.close()


def make_ledger(database: Database, number: int = 0, *queues: WorkQueue) -> WorkLedger:
    return WorkLedger(
        database=database,
        worker=f"worker-{number}",
        lease_seconds=LEASE_SECONDS,
        max_attempts=3,
        queues=queues or (WorkQueue.GPU,),
    )


@dataclass(frozen=True, kw_only=True)
class Timed:
    """Seconds of each call, and the mean of what each took of our CPU and of the database's execution."""

    seconds: list[float]
    cpu_seconds: float
    database_seconds: float | None

    def __str__(self) -> str:
        """Cells of a table."""
        wall = (1000 * percentile(self.seconds, share) for share in (0.5, 0.99))
        in_database = "" if self.database_seconds is None else f"{1000 * self.database_seconds:.1f} ms"
        return " | ".join(
            [*(f"{value:.1f} ms" for value in wall), f"{1000 * self.cpu_seconds:.1f} ms", in_database]
        )


def timed(
    database: Database,
    call: Callable[[WorkLedger], object],
    *queues: WorkQueue,
    times: int,
    threads: int = 1,
) -> Timed:
    """Each thread is a worker of its own, of these queues."""

    def call_often(number: int) -> list[float]:
        ledger = make_ledger(database, number, *queues)
        seconds = []
        for _ in range(times // threads):
            started_at = time.perf_counter()
            call(ledger)
            seconds.append(time.perf_counter() - started_at)
        return seconds

    executed, cpu = executed_seconds(database), time.process_time()
    with ThreadPoolExecutor(threads) as pool:
        seconds = [each for many in pool.map(call_often, range(threads)) for each in many]
    calls = len(seconds)
    return Timed(
        seconds=seconds,
        cpu_seconds=(time.process_time() - cpu) / calls,
        database_seconds=None if executed is None else ((executed_seconds(database) or 0) - executed) / calls,
    )


def executed_seconds(database: Database) -> float | None:
    """What PostgreSQL has spent on all statements so far. None for SQLite, which computes in our own process."""
    if database.is_sqlite:
        return None
    with database.connect() as connection:
        return float(connection.scalar(text("SELECT sum(total_exec_time) / 1000 FROM pg_stat_statements")))


def claim(ledger: WorkLedger) -> None:
    assert ledger.claim() is not None


def find_nothing(ledger: WorkLedger) -> None:
    assert ledger.claim() is None


def sweep(ledger: WorkLedger) -> None:
    """What a sweeper asks of the database in one round."""
    ledger.give_back_expired()
    ledger.ready_units()


def let_none_wait(database: Database) -> None:
    """Every user may have a render prepared: of each render one segment is left, which rests for an hour."""
    waiting = Segment.status == SegmentStatus.WAITING
    rest = update(Segment).where(waiting).values(retry_at=database_now(plus_seconds=3600))
    with database.write() as session:
        session.execute(delete(Segment).where(waiting, Segment.position < SEGMENTS_OF_A_RENDER - 1))
        session.execute(rest.execution_options(synchronize_session=False))
    if not database.is_sqlite:
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))


@contextmanager
def noted(database: Database) -> Iterator[list[tuple[str, Any]]]:
    """What is asked of the database meanwhile: statements and their values."""
    asked: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        asked.append((statement, values))

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        yield asked
    finally:
        event.remove(database.engine, "before_cursor_execute", note)


def statements_by_call(database: Database) -> dict[str, int]:
    """How many statements each step of a segment's way takes, and each round of a worker's threads."""
    ledger = make_ledger(database)
    held = ledger.claim()
    assert held is not None
    calls: dict[str, Callable[[], object]] = {
        "claim a segment": ledger.claim,
        "heartbeat": lambda: ledger.renew(held, frames_done=1),
        "segment done": lambda: ledger.segment_done(held, storage_key="renders/x/segments/y"),
        "ask for the turn to sweep": lambda: ledger.take_sweep(every_seconds=LEASE_SECONDS),
        "sweep": lambda: sweep(ledger),
        "worker lives": Registration(ledger, device="cpu").beat,
    }
    # The first time is not as the later ones: the worker has no row yet.
    calls["worker lives"]()
    calls["ask for the turn to sweep"]()
    counts = {}
    for name, call in calls.items():
        with noted(database) as asked:
            call()
        counts[name] = len(asked)
    return counts


def scans(database: Database, asked: list[tuple[str, Any]]) -> set[str]:
    """How the planner reads tables for these statements, one entry per way."""
    explain = "EXPLAIN QUERY PLAN " if database.is_sqlite else "EXPLAIN (FORMAT JSON) "
    ways: set[str] = set()
    with database.connect() as connection:
        for statement, values in asked:
            rows = connection.exec_driver_sql(explain + statement, values).fetchall()
            if database.is_sqlite:
                ways.update(detail for *_, detail in rows if detail.startswith(("SCAN", "SEARCH")))
            else:
                ways.update(_ways(rows[0][0][0]["Plan"]))
        connection.rollback()
    return ways


def _ways(node: dict[str, Any]) -> Iterator[str]:
    if "Scan" in node["Node Type"]:
        place = node.get("Relation Name") or node.get("CTE Name") or ""
        yield f"{node['Node Type']} {place} {node.get('Index Name', '')}".strip()
    for child in node.get("Plans", ()):
        yield from _ways(child)


def print_timed(name: str, database: Database, what: str, *how: Any, **options: Any) -> None:
    print(f"| {name} | {what} | {timed(database, *how, **options)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="What one claim costs when much is waiting.")
    parser.parse_args()
    ways, statements = {}, {}
    print("| database | what | p50 | p99 | of the worker's CPU | in the database |")
    print("|---|---|---|---|---|---|")
    for name, filled in (("PostgreSQL", filled_postgresql), ("SQLite", filled_sqlite)):
        with filled() as database:
            measure: Callable[..., None] = partial(print_timed, name, database)
            timed(database, claim, WorkQueue.GPU, times=WARM_UP)
            measure("claim a segment", claim, WorkQueue.GPU, times=CLAIMS)
            many = f"claim a segment, {THREADS} threads at once"
            measure(many, claim, WorkQueue.GPU, times=CLAIMS, threads=THREADS)
            measure("claim by a worker of both queues", claim, *WorkQueue, times=CLAIMS)
            measure(
                "look for a render to prepare where none may be", find_nothing, WorkQueue.CPU, times=CLAIMS
            )
            measure("sweep", sweep, times=SWEEPS)
            with noted(database) as asked:
                claim(make_ledger(database))
            ways[name] = scans(database, asked)
            statements[name] = statements_by_call(database)
            let_none_wait(database)
            measure("claim a render to prepare", claim, WorkQueue.CPU, times=CLAIMS)
    for name, found in ways.items():
        counts = ", ".join(f"{call} {number}" for call, number in statements[name].items())
        print(f"\n{name}, statements: {counts}.\n\n{name}, a claim reads: " + "; ".join(sorted(found)))


if __name__ == "__main__":
    main()
