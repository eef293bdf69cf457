"""Nobody has more renders at work than their cap; the others wait as queued."""

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import Any

import pytest

from app.accounts import queries as account_queries
from app.platform.database import Database
from app.platform.media.info import VideoProperties
from app.platform.secrets import new_id
from app.platform.work_kinds import WorkKind, WorkQueue
from app.renders.tables import Render
from app.work import fair_scheduling
from app.work.ledger import WorkLedger
from app.work.queries import Claim
from tests.integration.rows import a_file, a_render

FACTS = VideoProperties(width=64, height=48, frame_rate=Fraction(25), duration_seconds=Fraction(2), frames=50)

MakeLedger = Callable[..., WorkLedger]

on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


def add_user(database: Database, *, renders: int, cap: int | None = None) -> str:
    """A user with so many queued renders."""
    with database.write() as session:
        user = account_queries.add_user(session, user_id=new_id(), name=new_id())
        user.max_running_renders = cap
        file = a_file(user.id)
        session.add(file)
        session.flush()
        for _ in range(renders):
            a_render(session, file)
        return user.id


def owner(database: Database, claim: Claim) -> str:
    with database.read() as session:
        return session.get_one(Render, claim.render_id).user_id


def test_nobody_has_more_renders_at_work_than_their_cap(
    database: Database, make_ledger: MakeLedger, prepare: Callable[..., object]
) -> None:
    """From being prepared to being finished. What was given back before it was prepared holds no place."""
    capped, generous, usual = (add_user(database, renders=4, cap=cap) for cap in (1, 3, None))
    cpu = make_ledger(queues=[WorkQueue.CPU], max_running_renders=2)

    def claim_all() -> list[Claim]:
        claims = []
        while (claim := cpu.claim()) is not None:
            claims.append(claim)
        return claims

    claims = claim_all()
    assert Counter(owner(database, claim) for claim in claims) == {capped: 1, generous: 3, usual: 2}
    assert cpu.ready_units().total() == 0

    (own,) = [claim for claim in claims if owner(database, claim) == capped]
    cpu.hand_back(own)
    (again,) = claim_all()
    assert again.render_id == own.render_id
    prepare(cpu, again, segments=1)
    segment = make_ledger(queues=[WorkQueue.GPU]).claim()
    assert segment is not None and cpu.claim() is None
    cpu.segment_done(segment, storage_key="done")
    finish = cpu.claim()
    assert finish is not None and finish.kind is WorkKind.FINISH
    assert cpu.claim() is None
    cpu.finished(finish, output_key="o", thumbnail_key="t", output=FACTS, cost=1.0, warnings=[])
    (following,) = claim_all()
    assert (owner(database, following), following.kind) == (capped, WorkKind.PREPARE)


@on_postgresql
def test_workers_at_once_keep_the_cap_on_renders(database: Database, make_ledger: MakeLedger) -> None:
    add_user(database, renders=12)
    start = threading.Barrier(6)

    def claim() -> bool:
        start.wait(20)
        return make_ledger(max_running_renders=2).claim() is not None

    with ThreadPoolExecutor(6) as threads:
        claimed = [future.result(timeout=60) for future in [threads.submit(claim) for _ in range(6)]]
    assert sum(claimed) == 2


@on_postgresql
def test_a_claim_between_a_users_turn_and_what_is_claimed_for_them_counts_for_the_cap_on_renders(
    database: Database, make_ledger: MakeLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_user(database, renders=2)
    taken, rivals = fair_scheduling.take_turn, [make_ledger(max_running_renders=1)]

    def take(*arguments: Any, **parameters: Any) -> fair_scheduling.Turn | None:
        turn = taken(*arguments, **parameters)
        while turn and rivals:
            assert rivals.pop().claim() is not None
        return turn

    ledger = make_ledger(queues=[WorkQueue.CPU], max_running_renders=1)
    monkeypatch.setattr(fair_scheduling, "take_turn", take)
    assert ledger.claim() is None and rivals == []
