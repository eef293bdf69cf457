"""Workers whose transactions overlap: on PostgreSQL they neither wait for each other, nor miss what the other did."""

import contextlib
import re
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from sqlalchemy import event, select, text, update
from sqlalchemy.orm import Session

from app.accounts import service as account_service
from app.accounts.tables import ApiKey, User
from app.platform.database import Database, database_now
from app.platform.errors import LeaseLost, PermanentError
from app.platform.secrets import Secrets
from app.platform.settings import Settings
from app.platform.work_kinds import WorkKind
from app.renders.statuses import RenderStatus, SegmentStatus
from app.renders.tables import Render, Segment
from app.work import claiming
from app.work import queries as work_queries
from app.work.ledger import WorkLedger
from app.work.queries import Claim
from tests.servers.process import wait_until

MakeLedger = Callable[..., WorkLedger]
AddRender = Callable[[], Render]
Prepare = Callable[..., object]

on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
LEASE: dict[str, Any] = {"worker": "by hand", "lease_seconds": 30.0}


def claimed(ledger: WorkLedger) -> Claim:
    claim = ledger.claim()
    assert claim is not None
    return claim


def side_by_side(*calls: Callable[[], object]) -> list[object]:
    """What each call returns, all of them started at once, each in a thread of its own."""
    start = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> object:
        start.wait(20)
        return call()

    with ThreadPoolExecutor(len(calls)) as threads:
        return [future.result() for future in [threads.submit(run, call) for call in calls]]


def waits_for_a_lock(database: Database) -> bool:
    with database.read() as session:
        query = "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND datname = :name"
        return bool(session.scalar(text(query), {"name": database.engine.url.database}))


def while_it_waits(database: Database, call: Callable[[], object], then: Callable[[], object]) -> object:
    """What `call` returns in a thread, `then` having run once it waits for a lock."""
    with ThreadPoolExecutor(1) as threads:
        future: Future[object] = threads.submit(call)
        wait_until(lambda: waits_for_a_lock(database) or future.done(), what="the call waits")
        assert not future.done()
        then()
        return future.result(timeout=20)


def claim_all(ledger: WorkLedger) -> list[Claim]:
    claims = []
    while (claim := ledger.claim()) is not None:
        claims.append(claim)
    return claims


@pytest.mark.parametrize("kind", list(WorkKind))
def test_each_unit_is_claimed_exactly_once(
    database: Database, make_ledger: MakeLedger, add_render: AddRender, prepare: Prepare, kind: WorkKind
) -> None:
    ledger = make_ledger()
    if kind is WorkKind.UPSCALE:
        add_render()
        prepare(ledger, claimed(ledger), segments=24)
    else:
        for _ in range(12):
            add_render()
    if kind is WorkKind.FINISH:
        for claim in claim_all(ledger):
            prepare(ledger, claim, segments=1)
        with database.write() as session:
            session.execute(update(Segment).values(status=SegmentStatus.DONE))

    workers = [make_ledger(f"worker-{number}") for number in range(8)]
    claims = [
        claim
        for found in side_by_side(*(partial(claim_all, own) for own in workers))
        for claim in found  # type: ignore[attr-defined]
    ]

    units = Counter((claim.kind, claim.segment_id or claim.render_id) for claim in claims)
    assert set(units.values()) == {1}
    assert {unit for unit, _id in units} == {kind}
    assert len(units) == (24 if kind is WorkKind.UPSCALE else 12)
    before = 1 if kind is WorkKind.FINISH else 0  # the attempt that prepared it
    assert {claim.attempt for claim in claims} == {before + 1}
    with database.read() as session:
        rows = session.scalars(select(Segment if kind is WorkKind.UPSCALE else Render)).all()
        assert {row.attempt for row in rows} == {before + 1}


@on_postgresql
def test_a_claim_that_is_not_committed_yet_holds_nobody_up(
    database: Database, make_ledger: MakeLedger, add_render: AddRender, prepare: Prepare
) -> None:
    """Would one of them wait for the other's row, it would do so until its statement's time limit ends it."""
    ledger = make_ledger()
    add_render()
    prepare(ledger, claimed(ledger), segments=2)
    with database.write() as session:
        first = claiming.claim_segment(session, **LEASE)
        second = ledger.claim()
        assert first is not None and second is not None
        assert first.segment_id != second.segment_id
        assert ledger.claim() is None

    renders = [add_render(), add_render()]
    with database.write() as session:
        first = claiming.claim_prepare(session, **LEASE)
        second = ledger.claim()
        assert first is not None and second is not None
        assert [first.render_id, second.render_id] == [render.id for render in renders]
        assert ledger.claim() is None


@on_postgresql
def test_a_claim_finds_its_row_once_and_by_index(
    database: Database, make_ledger: MakeLedger, add_render: AddRender, prepare: Prepare
) -> None:
    """However many there are, with statistics or without: the planner of a small table would rather read it whole, so
    it is told what that costs in a large one."""

    def urgent(session: Session, **lease: Any) -> object:
        return claiming.claim_urgent_prepare(session, datetime.now(UTC), **lease)

    capped = partial(claiming.claim_segment, cap=2)
    capped_prepare = partial(claiming.claim_prepare, render_cap=2)
    calls = (
        claiming.claim_finish,
        claiming.claim_segment,
        claiming.claim_prepare,
        urgent,
        capped,
        capped_prepare,
    )
    locking = set()

    def check() -> None:
        for claim in calls:
            for plan in explained(database, claim):
                assert not re.search("Seq Scan on (segments|renders)", plan), plan
                # A subselect that ran for each row, or again after a wait, could claim two units in one go.
                if "LockRows" in plan:
                    assert plan.count("LockRows") == 1, plan
                    assert {step.split()[0] for step in subplans_around("LockRows", plan)} <= {"InitPlan"}, (
                        plan
                    )
                    locking.add(claim)

    ledger = make_ledger()
    add_render()
    check()
    prepare(ledger, claimed(ledger), segments=6)
    ledger.claim()
    add_render()
    check()
    with database.write() as session:
        session.execute(update(Segment).values(status=SegmentStatus.DONE))
    check()
    with database.write() as session:
        session.execute(update(Segment).where(Segment.position > 0).values(status=SegmentStatus.WAITING))
    with database.connect(to_write=True) as connection:
        connection.exec_driver_sql("ANALYZE")
        connection.commit()
    check()
    assert locking >= set(calls) - {urgent}


def explained(database: Database, claim: Callable[..., object]) -> list[str]:
    """The plan of each statement that the claim executes, where reading a table whole is dear."""
    asked: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        asked.append((statement, values))

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        with database.write() as session:
            claim(session, **LEASE)
            session.rollback()
    finally:
        event.remove(database.engine, "before_cursor_execute", note)
    plans = []
    with database.connect(to_write=True) as connection:
        connection.exec_driver_sql("SET enable_seqscan = off")
        for statement, values in asked:
            if statement.startswith(("SELECT", "UPDATE", "WITH")):
                rows = connection.exec_driver_sql(f"EXPLAIN {statement}", values)
                plans.append("\n".join(row[0] for row in rows))
        connection.rollback()
    assert plans
    return plans


def subplans_around(node: str, plan: str) -> list[str]:
    """The headings of all parts of the plan that this node is in."""
    lines = plan.splitlines()
    indents = [len(line) - len(line.lstrip()) for line in lines]
    place = next(number for number, line in enumerate(lines) if node in line)
    found, depth = [], indents[place]
    for line, indent in zip(reversed(lines[:place]), reversed(indents[:place]), strict=True):
        if indent < depth:
            depth = indent
            found.append(line.strip())
    return [step for step in found if step.startswith(("InitPlan", "SubPlan", "CTE "))]


@on_postgresql
def test_the_last_two_segments_done_at_once_make_the_finish_ready(
    database: Database, make_ledger: MakeLedger, add_render: AddRender, prepare: Prepare
) -> None:
    """Neither transaction sees what the other has not committed, and neither waits for it: the last to commit looks
    again."""
    ledger = make_ledger()
    render = add_render()
    prepare(ledger, claimed(ledger), segments=2)
    first, second = claimed(ledger), claimed(ledger)
    with database.write() as session:
        assert work_queries.complete_segment(session, first, storage_key="first")
        assert ledger.segment_done(second, storage_key="second") == {}
    with database.read() as session:
        assert work_queries.may_be_finished(session, render_id=render.id)
    assert claimed(ledger).kind is WorkKind.FINISH


@pytest.mark.parametrize("workers", [2, 6])
def test_of_segments_done_at_once_the_last_makes_the_finish_ready_and_one_claims_it(
    database: Database, make_ledger: MakeLedger, add_render: AddRender, prepare: Prepare, workers: int
) -> None:
    ledgers = [make_ledger(f"worker-{number}") for number in range(workers)]
    for _round in range(3):
        add_render()
        prepare(ledgers[0], claimed(ledgers[0]), segments=workers)
        claims = [claimed(ledger) for ledger in ledgers]
        reports = side_by_side(
            *(
                partial(ledger.segment_done, claim, storage_key="done")
                for ledger, claim in zip(ledgers, claims, strict=True)
            )
        )
        assert sum(ready.total() for ready in reports) >= 1  # type: ignore[attr-defined]
        finishes = side_by_side(*(ledger.claim for ledger in ledgers))
        assert [claim.kind for claim in finishes if claim] == [WorkKind.FINISH]  # type: ignore[attr-defined]


@on_postgresql
def test_a_heartbeat_comes_before_the_sweeper_or_after_it_never_between(
    database: Database, make_ledger: MakeLedger, add_render: AddRender, prepare: Prepare
) -> None:
    ledger = make_ledger()
    add_render()
    prepare(ledger, claimed(ledger), segments=1)
    claim = claimed(ledger)

    def let_the_lease_run_out() -> None:
        with database.write() as session:
            session.execute(update(Segment).values(lease_expires_at=database_now(plus_seconds=-1)))

    let_the_lease_run_out()
    with database.write() as session:
        assert work_queries.renew(session, claim, lease_seconds=30, frames_done=1)
        assert ledger.give_back_expired() == []  # nor does it wait
    assert ledger.give_back_expired() == []
    assert ledger.renew(claim, frames_done=2)

    let_the_lease_run_out()
    with database.write() as session:
        assert [late.segment_id for late in work_queries.expired_claims(session)] == [claim.segment_id]
        assert ledger.give_back_expired() == []  # a second sweeper
        assert work_queries.charge(session, claim, work_queries.AttemptOutcome.EXPIRY) == 1
        work_queries.give_back(session, claim)
        renewed = while_it_waits(database, lambda: ledger.renew(claim, frames_done=3), session.commit)
    assert renewed is False
    assert claimed(ledger).attempt == claim.attempt + 1


def test_workers_that_end_a_render_together_never_deadlock(
    database: Database, make_ledger: MakeLedger, add_render: AddRender, prepare: Prepare
) -> None:
    """Done, failed for good, given back, renewed and swept at once. A deadlock's victim would raise Unavailable."""
    ledger = make_ledger()
    for _round in range(4):
        render = add_render()
        prepare(ledger, claimed(ledger), segments=8)
        claims = [claimed(ledger) for _ in range(8)]
        with database.write() as session:
            late = update(Segment).where(Segment.id.in_([claim.segment_id for claim in claims[6:]]))
            session.execute(late.values(lease_expires_at=database_now(plus_seconds=-1)))

        side_by_side(
            *(partial(done, ledger, claim) for claim in claims[:2]),
            *(partial(ledger.failed, claim, PermanentError("It is damaged.")) for claim in claims[2:4]),
            partial(ledger.hand_back, claims[4]),
            partial(ledger.renew, claims[5], frames_done=5),
            ledger.give_back_expired,
            ledger.give_back_expired,
        )
        with database.read() as session:
            assert session.get_one(Render, render.id).status is RenderStatus.FAILED
            states = session.scalars(select(Segment.status).where(Segment.render_id == render.id))
            assert set(states) <= {SegmentStatus.DONE, SegmentStatus.FAILED}
        assert ledger.claim() is None


def done(ledger: WorkLedger, claim: Claim) -> None:
    with contextlib.suppress(LeaseLost):
        ledger.segment_done(claim, storage_key="done")


@on_postgresql
def test_of_two_servers_that_start_at_once_one_makes_the_first_key(database: Database) -> None:
    keys = Secrets.load(Settings(secret_key="a secret of these tests, which is none"))

    def first_key() -> object:
        with database.write() as session:
            return account_service.create_first_key(session, keys=keys)

    with database.write() as session:
        made = account_service.create_first_key(session, keys=keys)
        assert while_it_waits(database, first_key, session.commit) is None
    assert made is not None
    assert first_key() is None
    with database.read() as session:
        assert [user.name for user in session.scalars(select(User))] == ["default"]
        assert len(session.scalars(select(ApiKey)).all()) == 1
        assert account_service.authenticate(session, key=made.key, keys=keys).user_name == "default"
