"""All segments of a render are computed in one precision, as long as a worker that has it lives."""

from collections.abc import Callable

import pytest
from sqlalchemy import update

from app.platform.database import Database, database_now
from app.platform.errors import LeftToOthers, TransientError
from app.platform.work_kinds import WorkKind, WorkQueue
from app.renders.statuses import SegmentStatus
from app.renders.tables import Render, Segment
from app.work import worker_standing
from app.work.ledger import WorkLedger
from app.work.queries import Job
from app.work.tables import WorkerProcess
from app.work.worker_queries import SILENT_LEASES
from app.work.workers import list_workers
from worker.agreed_precision import agree, several_precisions
from worker.registration import Registration

SEGMENTS = 4


class Worker:
    """Begins renders in the last of its precisions, the first of which is fp32."""

    def __init__(self, ledger: WorkLedger) -> None:
        self.ledger = ledger
        self.registration = Registration(ledger, device="cpu")
        self.registration.beat()

    def claim(self) -> Job | None:
        return self.ledger.claim([WorkKind.UPSCALE])

    def upscale(self, claimed: Job | None = None) -> str | None:
        """One segment. Returns in which precision; None if there was nothing to claim."""
        job = claimed or self.claim()
        if job is None:
            return None
        precision = agree(job, self.ledger, lambda: self.ledger.precisions[-1])
        self.ledger.segment_done(job, storage_key="there", precision=precision)
        return precision

    def set(self, **values: object) -> None:
        """Columns of its row, which the others read with their next heartbeat."""
        with self.ledger.database.write() as session:
            row = WorkerProcess.name == self.ledger.worker
            session.execute(update(WorkerProcess).where(row).values(**values))


@pytest.fixture
def render(
    make_ledger: Callable[..., WorkLedger], add_render: Callable[[], Render], prepare: Callable[..., object]
) -> Render:
    """Prepared, by a worker that upscales nothing."""
    render, reader = add_render(), make_ledger("reader", queues=[WorkQueue.CPU])
    prepare(reader, reader.claim(), segments=SEGMENTS)
    return render


@pytest.fixture
def join(make_ledger: Callable[..., WorkLedger]) -> Callable[..., Worker]:
    def make(name: str, *precisions: str) -> Worker:
        return Worker(make_ledger(name, machine=name, precisions=precisions))

    return make


@pytest.fixture
def able(render: Render, join: Callable[..., Worker]) -> Worker:
    return join("able", "fp32", "bf16")


@pytest.fixture
def exact(able: Worker, join: Callable[..., Worker]) -> Worker:
    return join("exact", "fp32")


def test_a_worker_without_the_precision_leaves_the_render_to_those_that_have_it(
    database: Database, able: Worker, exact: Worker, join: Callable[..., Worker], render: Render
) -> None:
    assert able.upscale() == "bf16"
    assert exact.upscale() is None
    assert join("of an older version").claim() is not None
    assert join("third", "fp32", "bf16", "mixed").upscale() == "bf16"
    claim = able.claim()
    with database.read() as session:
        assert session.get_one(Render, render.id).precision == "bf16"
        shown = {view.name: (view.precisions, view.precision) for view in list_workers(session)}
    assert shown["able"] == (("fp32", "bf16"), "bf16") and shown["exact"] == (("fp32",), None)
    assert able.upscale(claim) == "bf16"


def test_all_go_on_in_the_fp32_of_the_first(able: Worker, exact: Worker) -> None:
    assert [worker.upscale() for worker in (exact, able, exact, able)] == ["fp32"] * SEGMENTS


def test_of_two_that_claim_at_the_same_time_the_later_gives_its_segment_back(
    database: Database, able: Worker, exact: Worker
) -> None:
    first, late = able.claim(), exact.claim()
    assert late is not None and able.upscale(first) == "bf16"
    with pytest.raises(LeftToOthers):
        exact.upscale(late)
    exact.ledger.hand_back(late)
    with database.read() as session:
        segment = session.get_one(Segment, late.segment_id)
        assert (segment.status, segment.failures, segment.retry_at) == (SegmentStatus.WAITING, 0, None)
    assert exact.claim() is None
    assert [able.upscale() for _ in range(SEGMENTS - 1)] == ["bf16"] * (SEGMENTS - 1)


def dies(worker: Worker) -> None:
    silent_seconds = SILENT_LEASES * worker.ledger.lease_seconds + 1
    worker.set(heartbeat_at=database_now(plus_seconds=-silent_seconds))


def drains(worker: Worker) -> None:
    worker.set(drained_since=database_now())


def keeps_itself_in_quarantine(worker: Worker) -> None:
    with worker.ledger.database.write() as session:
        worker_standing.quarantine(session, name=worker.ledger.worker, reason="for a test")


def serves_another_engine(worker: Worker) -> None:
    worker.set(engines=["regen-4x"])


def lacks_an_encoder(worker: Worker) -> None:
    worker.set(lacked_codecs=["av1"])


def fails(worker: Worker) -> None:
    job = worker.claim()
    assert job is not None
    worker.ledger.failed(job, TransientError("The device's memory did not suffice."))


@pytest.mark.parametrize(
    "happens", [dies, drains, keeps_itself_in_quarantine, serves_another_engine, lacks_an_encoder, fails]
)
def test_without_an_able_worker_others_go_on_in_fp32(
    happens: Callable[[Worker], None], able: Worker, exact: Worker
) -> None:
    assert able.upscale() == "bf16"
    happens(able)
    exact.registration.beat()
    assert exact.upscale() == "fp32"


def test_the_finish_is_told_and_the_user_too(
    make_ledger: Callable[..., WorkLedger], able: Worker, exact: Worker
) -> None:
    able.upscale()
    dies(able)
    exact.registration.beat()
    for _ in range(SEGMENTS - 1):
        exact.upscale()
    finish = make_ledger("reader", queues=[WorkQueue.CPU]).claim()
    assert finish is not None and finish.kind is WorkKind.FINISH
    assert [segment.precision for segment in finish.segments] == ["bf16", "fp32", "fp32", "fp32"]
    assert "different precisions (bf16, fp32)" in (several_precisions(finish.segments) or "")
    assert several_precisions(finish.segments[1:]) is None
    assert several_precisions([]) is None
