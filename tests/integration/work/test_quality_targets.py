"""Renders whose quality is searched for, among workers of which some cannot measure it."""

from collections.abc import Callable

import pytest

from app.platform.database import Database
from app.platform.work_kinds import WorkKind, WorkQueue
from app.renders.tables import Render, Segment
from app.work.ledger import WorkLedger
from worker.registration import Registration


@pytest.fixture
def render(
    database: Database,
    make_ledger: Callable[..., WorkLedger],
    add_render: Callable[[], Render],
    prepare: Callable[..., object],
) -> Render:
    """Prepared in two segments, for a target."""
    render, reader = add_render(), make_ledger("reader", queues=[WorkQueue.CPU])
    with database.write() as session:
        session.get_one(Render, render.id).output_quality = "vmaf=95"
    prepare(reader, reader.claim(), segments=2)
    return render


@pytest.fixture
def join(make_ledger: Callable[..., WorkLedger]) -> Callable[..., WorkLedger]:
    def make(name: str, *, measures: bool, precisions: tuple[str, ...] = ("fp32",)) -> WorkLedger:
        ledger = make_ledger(name, machine=name, precisions=precisions)
        ledger.measures_vmaf = measures
        return ledger

    return make


def test_only_workers_that_measure_vmaf_claim_it(
    database: Database, render: Render, join: Callable[..., WorkLedger]
) -> None:
    lacking, able = join("lacking", measures=False), join("able", measures=True)
    assert lacking.claim([WorkKind.UPSCALE]) is None
    job = able.claim([WorkKind.UPSCALE])
    assert job is not None and job.output_quality == "vmaf=95"
    able.segment_done(job, storage_key="there", crf=21.5, vmaf=95.25)
    with database.read() as session:
        done = session.get_one(Segment, job.segment_id)
        assert (done.crf, done.vmaf) == (21.5, 95.25)
    job = able.claim([WorkKind.UPSCALE])
    assert job is not None
    able.segment_done(job, storage_key="there", crf=8, vmaf=94)
    finish = lacking.claim([WorkKind.FINISH])
    assert finish is not None
    assert [(one.crf, one.vmaf) for one in finish.segments] == [(21.5, 95.25), (8, 94)]


def test_what_was_measured_of_the_filter_reaches_the_finish(
    render: Render, join: Callable[..., WorkLedger]
) -> None:
    able = join("able", measures=True)
    pairs = [[1e-4, 0.5e-4, 3.25, 3.0, 1.0], [None, None, 0.0, 0.0, 0.0]]
    for measured in (pairs, None):
        job = able.claim([WorkKind.UPSCALE])
        assert job is not None
        able.segment_done(job, storage_key="there", crf=21.5, vmaf=95, filtered_pairs=measured)
    finish = able.claim([WorkKind.FINISH])
    assert finish is not None
    assert [one.filtered_pairs for one in finish.segments] == [pairs, None]


@pytest.mark.parametrize("quality", [None, "high"])
def test_all_workers_claim_others(
    database: Database, render: Render, join: Callable[..., WorkLedger], quality: str | None
) -> None:
    with database.write() as session:
        session.get_one(Render, render.id).output_quality = quality
    assert join("lacking", measures=False).claim([WorkKind.UPSCALE]) is not None


def test_a_precision_is_not_left_to_workers_that_cannot_measure(
    render: Render, join: Callable[..., WorkLedger]
) -> None:
    """Otherwise a render in a precision of theirs would wait for workers that may not claim it."""
    lacking = join("lacking", measures=False, precisions=("fp32", "bf16"))
    Registration(lacking, device="cpu").beat()
    able = join("able", measures=True)
    Registration(able, device="cpu").beat()
    assert able.left_to_others == frozenset()
    other = join("other", measures=True, precisions=("fp32", "bf16"))
    Registration(other, device="cpu").beat()
    Registration(able, device="cpu").beat()
    assert {precision for _, precision in able.left_to_others} == {"bf16"}
