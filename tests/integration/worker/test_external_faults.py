"""Every external step of a render fails in every way: the render ends with a sentence, and the next one completes.

The units run in this process, one after the other, with bounds that are short. The two programs are scripts that pass
on to the real ones, unless the step that is to fail is among their arguments.
"""

import errno
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from structlog.testing import capture_logs

from app.platform.database import database_now
from app.platform.errors import AccessRefused, FfmpegError, KeyNotFound, StorageError, Unavailable
from app.platform.media import process
from app.platform.media.programs import find_programs
from app.platform.retry_policies import RetryPolicy
from app.platform.storage.contract import Storage
from app.renders.statuses import RenderStatus
from app.renders.tables import Render, Segment
from app.work import loop, outage_retry
from app.work.ledger import WorkLedger
from app.work.outage_retry import OutageRetry
from tests.integration.worker.conftest import Workplace
from tests.integration.worker.worker_in_process import WorkerInProcess
from worker import work_units
from worker.video.quality import NOT_MEASURED

# Also for a machine that does much else.
STALL_SECONDS = 2.0

# What alone the arguments of a step's program contain.
STEPS = {
    "probe": "format_name",
    "packets": "pts,dts,duration",
    "scan": "framecrc",
    "decode": "-map 0:0 -f rawvideo",
    "encode": "-vcodec libx264",
    "read back": "pts,dts:packet_side_data",
    "join": "segments.ffconcat",
    "thumbnail": "-vcodec mjpeg",
}
FAULTS = {
    "status": "exit 69",
    "signal": "kill -9 $$",
    "garbage": "head -c 100000 /dev/urandom; echo garbage >&2; exit 0",
    "silence": "exec sleep 600",
}


class Site(WorkerInProcess):
    """`faulty` holds what replaces methods of its storage."""

    def __init__(self, place: Workplace, programs: Path, *, max_attempts: int) -> None:
        self.programs = programs
        self.faulty: dict[str, Callable[..., Any]] = {}
        super().__init__(
            place,
            settings=place.settings.model_copy(
                update={"ffmpeg": str(programs / "ffmpeg"), "ffprobe": str(programs / "ffprobe")}
            ),
            storage=FaultyStorage(place.storage, self.faulty),  # type: ignore[arg-type]
            max_attempts=max_attempts,
            cache_bytes=0,
            outage_retry=OutageRetry(seconds=0, stall_seconds=STALL_SECONDS),
        )

    def break_step(self, pattern: str, fault: str) -> None:
        (self.programs / "pattern").write_text(pattern)
        (self.programs / "fault").write_text(fault)

    def mend(self) -> None:
        (self.programs / "pattern").unlink(missing_ok=True)
        self.faulty.clear()

    def work_on(self, render_id: str) -> Render:
        """Does what there is to do, once. What rests has rested."""
        with self.place.database.write() as session:
            for table in (Render, Segment):
                session.execute(update(table).values(retry_at=None))
        with capture_logs():  # the console's tracebacks take longer than the work
            self.work()
        return self.render(render_id)


def failures(row: Render) -> int:
    return row.failures + sum(segment.failures for segment in row.segments)


def expiries(row: Render) -> int:
    """What is charged where something outside killed a program after another render had failed."""
    return row.expiries + sum(segment.expiries for segment in row.segments)


class FaultyStorage:
    def __init__(self, storage: Storage, faults: dict[str, Callable[..., Any]]) -> None:
        self._storage = storage
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        return self._faults.get(name) or getattr(self._storage, name)


@pytest.fixture
def site(
    workplace: Callable[..., Workplace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Site]]:
    monkeypatch.setattr(process, "SUPERVISION_SECONDS", 0.1)
    monkeypatch.setattr(loop, "WORKER_OUTAGE", RetryPolicy(steps_seconds=(0.0,)))
    monkeypatch.setattr(outage_retry, "OUTAGE_RETRY", RetryPolicy(steps_seconds=(0.01,)))
    for name, program in (("ffmpeg", find_programs().ffmpeg), ("ffprobe", find_programs().ffprobe)):
        script = tmp_path / name
        script.write_text(
            f"#!/bin/sh\ncd {tmp_path}\n"
            'if [ -e pattern ]; then case "$*" in *"$(cat pattern)"*) eval "$(cat fault)" ;; esac; fi\n'
            f'exec {program} "$@"\n'
        )
        script.chmod(0o755)
    made: list[Site] = []

    def make(*, max_attempts: int = 3) -> Site:
        place = workplace(stall_seconds=str(STALL_SECONDS), segment_seconds="10", sandbox="off")
        made.append(Site(place, tmp_path, max_attempts=max_attempts))
        return made[-1]

    yield make
    for one in made:
        one.close()


def check_sentence(row: Render) -> None:
    assert row.status is RenderStatus.FAILED, row.status
    assert row.error and row.error[0].isupper() and row.error.endswith("."), row.error
    assert "/" not in row.error, "no path, and nothing of ffmpeg's own words"


@pytest.mark.parametrize("step", STEPS)
def test_a_program_that_fails_costs_an_attempt_and_ends_the_render_with_a_sentence_and_the_next_one_completes(
    site: Callable[..., Site], step: str
) -> None:
    one = site(max_attempts=len(FAULTS))
    render_id, charged, ended, another_failed = one.place.submit(), 0, False, False
    for name, fault in FAULTS.items():
        one.break_step(STEPS[step], fault)
        row = one.work_on(render_id)
        ended = row.status.is_final
        if ended:
            check_sentence(row)
            render_id, charged, another_failed = one.place.submit(), 0, True
        else:
            charged += 1
            assert failures(row) + expiries(row) == charged, name
            assert expiries(row) <= int(another_failed), "of the faults only one kills from outside"
    if not ended:
        one.ledger.max_attempts = charged + 1 - expiries(row)
        check_sentence(one.work_on(render_id))
        render_id = one.place.submit()
    one.mend()
    assert one.work_on(render_id).status is RenderStatus.COMPLETED


@pytest.mark.parametrize(
    ("pattern", "warnings"), [("frame=interlaced_frame", []), ("extractplanes", [NOT_MEASURED])]
)
def test_what_a_render_can_do_without_costs_that_alone(
    site: Callable[..., Site], pattern: str, warnings: list[str]
) -> None:
    """What the first frames tell, and the measurement."""
    one = site()
    render_id = one.place.submit()
    with one.place.database.write() as session:
        session.get_one(Render, render_id).measures_quality = True
    one.break_step(pattern, FAULTS["garbage"])
    row = one.work_on(render_id)
    assert (row.status, row.warnings) == (RenderStatus.COMPLETED, warnings)


def own_cause() -> FfmpegError:
    error = FfmpegError("The video program failed while trying.")
    error.__cause__ = error
    return error


def test_an_error_that_is_its_own_cause_ends_the_render_with_a_sentence(
    site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = site(max_attempts=1)
    for step in ("probe_video", "plan_render", "run_segment", "finish_render"):
        with monkeypatch.context() as broken:
            broken.setattr(work_units, step, raises(own_cause))
            check_sentence(one.work_on(one.place.submit()))
    assert one.work_on(one.place.submit()).status is RenderStatus.COMPLETED


def raises(make: Callable[[], Exception]) -> Callable[..., None]:
    def method(*_: object, **__: object) -> None:
        raise make()

    return method


def hangs(*_: object, **__: object) -> None:
    time.sleep(2 * STALL_SECONDS)


def fetches_garbage(_key: str, path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 400)


STORAGE_FAULTS: dict[str, tuple[Callable[..., None], str]] = {
    "away": (raises(lambda: StorageError("The storage is away.")), "outage"),
    "refused": (raises(lambda: AccessRefused("Not for you.", detail="403")), "failure"),
    "gone": (raises(lambda: KeyNotFound("There is no such file.")), "failure"),
    "no error of ours": (raises(lambda: RuntimeError("a defect")), "failure"),
    "its own cause": (raises(own_cause), "failure"),
    "no room": (raises(lambda: OSError(errno.ENOSPC, "no room")), "outage"),
    "command too long": (raises(lambda: OSError(errno.E2BIG, "too long")), "failure"),
    "silence": (hangs, "outage"),
    "garbage": (fetches_garbage, "failure"),
}


@pytest.mark.parametrize("method", ["fetch", "put_file"])
def test_storage_that_fails_is_an_outage_or_the_works_failure_and_work_goes_on(
    site: Callable[..., Site], method: str
) -> None:
    one = site(max_attempts=100)
    render_id = one.place.submit()
    for name, (fault, kind) in STORAGE_FAULTS.items():
        if method == "put_file" and name == "garbage":
            continue
        one.faulty[method] = fault
        before = outages_and_failures(one, render_id)
        row = one.work_on(render_id)
        if row.status.is_final:
            check_sentence(row)
            render_id = one.place.submit()
            continue
        outages, failed = outages_and_failures(one, render_id)
        grown = (outages - before[0], failed - before[1])
        assert grown == ((1, 0) if kind == "outage" else (0, 1)), name
    one.mend()
    assert one.work_on(render_id).status is RenderStatus.COMPLETED


def outages_and_failures(one: Site, render_id: str) -> tuple[int, int]:
    with one.place.database.read() as session:
        row = session.get_one(Render, render_id)
        return row.outages + sum(segment.outages for segment in row.segments), failures(row)


@pytest.mark.parametrize("report", ["claim", "prepared", "segment_done", "finished", "failed"])
def test_a_database_that_does_not_take_a_report_costs_a_lease_at_most(
    site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch, report: str
) -> None:
    one = site(max_attempts=100)
    render_id = one.place.submit()
    if report == "failed":
        one.break_step(STEPS["scan"], FAULTS["status"])
    for make in (lambda: Unavailable("away"), own_cause):
        with monkeypatch.context() as broken:
            broken.setattr(WorkLedger, report, raises(make))
            assert not one.work_on(render_id).status.is_final
        with one.place.database.write() as session:  # the leases of what was not reported run out
            for table in (Render, Segment):
                held = update(table).where(table.lease_expires_at.is_not(None))
                session.execute(held.values(lease_expires_at=database_now(plus_seconds=-1)))
        one.ledger.give_back_expired()
    one.mend()
    assert one.work_on(render_id).status is RenderStatus.COMPLETED
