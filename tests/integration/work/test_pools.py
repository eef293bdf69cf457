"""A worker upscales with its own engines alone."""

from collections.abc import Callable

from sqlalchemy import update

from app.platform.database import Database
from app.platform.work_kinds import WorkKind, WorkQueue
from app.renders.tables import Render
from app.work.ledger import WorkLedger


def test_a_pool_for_one_engine_claims_its_segments_and_no_others(
    database: Database,
    make_ledger: Callable[..., WorkLedger],
    add_render: Callable[[], Render],
    prepare: Callable[..., object],
) -> None:
    reader = make_ledger("reader", queues=[WorkQueue.CPU])
    renders = {engine: add_render() for engine in ("regen-4x-lite", "regen-4x")}
    with database.write() as session:
        for engine, render in renders.items():
            session.execute(update(Render).where(Render.id == render.id).values(engine=engine))
    # Both before either has segments, which would keep the other from being prepared.
    for claim in [reader.claim(), reader.claim()]:
        prepare(reader, claim, segments=2)
    expensive = make_ledger("expensive", queues=[WorkQueue.GPU], engines=["regen-4x"])
    both = make_ledger("both", engines=["regen-4x", "regen-4x-lite"])
    claims = [expensive.claim(), expensive.claim(), expensive.claim()]
    assert [claim and (claim.engine, claim.kind) for claim in claims] == [
        ("regen-4x", WorkKind.UPSCALE),
        ("regen-4x", WorkKind.UPSCALE),
        None,
    ]
    claim = both.claim()
    assert claim is not None and claim.engine == "regen-4x-lite"
    claim = make_ledger("any").claim()
    assert claim is not None and claim.engine == "regen-4x-lite"
