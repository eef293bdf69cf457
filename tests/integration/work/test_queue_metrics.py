"""What the figures cost the database."""

from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import event, update

from app.platform.database import Database
from app.platform.work_kinds import WorkQueue
from app.renders.statuses import SegmentStatus
from app.renders.tables import Render, Segment
from app.work.ledger import WorkLedger
from app.work.queue_metrics import work_metrics
from tests.integration.work.test_work_at_once import on_postgresql

SEGMENTS = 2000


@on_postgresql
def test_segments_that_are_done_are_not_read(
    database: Database,
    make_ledger: Callable[..., WorkLedger],
    add_render: Callable[[], Render],
    prepare: Callable[..., object],
) -> None:
    ledger = make_ledger()
    add_render()
    prepare(ledger, ledger.claim(), segments=SEGMENTS)
    with database.write() as session:
        session.execute(update(Segment).values(status=SegmentStatus.DONE))
    with database.connect(to_write=True) as connection:
        connection.exec_driver_sql("ANALYZE")
        connection.commit()
    asked: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        asked.append((statement, values))

    event.listen(database.engine, "before_cursor_execute", note)
    with database.read() as session:
        assert work_metrics(session).queues[WorkQueue.CPU].waiting == 1
    event.remove(database.engine, "before_cursor_execute", note)

    read = []
    with database.connect() as connection:
        for statement, values in asked:
            (answer,) = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", values)
            for node in nodes(answer[0][0]["Plan"]):
                if node.get("Relation Name") == "segments":
                    read.append(node["Actual Rows"] + node.get("Rows Removed by Filter", 0))
    assert read and sum(read) < SEGMENTS / 10


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)
