"""Measured speeds, the work that lies ahead, and what follows for how long a render takes."""

from collections.abc import Callable
from fractions import Fraction

import pytest

from app.accounts import queries as account_queries
from app.estimates.forecasts import Cut, Forecast, Outlook, RenderWork
from app.files.tables import File
from app.platform.database import Database
from app.platform.media.rates import Retime
from app.platform.secrets import new_id
from app.platform.settings import Settings
from app.platform.work_kinds import WorkQueue
from app.renders import workload
from app.renders.service import find_render
from app.renders.tables import Render
from app.renders.workload import Upscaling
from app.work.ledger import WorkLedger
from app.work.speeds import MEMORY_SECONDS, note_segment, speeds_at_work
from app.work.tables import MeasuredSpeed, WorkerProcess
from models.catalog import ENGINES
from tests.integration.rows import a_file, a_render
from worker.registration import Registration

LITE, FULL = "regen-4x-lite", "regen-4x"
FRAME = 64 * 48


def noted(database: Database) -> dict[tuple[str, str], tuple[float, float]]:
    with database.read() as session:
        return {
            (row.worker_device, row.engine): (row.pixels_per_second, row.seconds)
            for row in session.query(MeasuredSpeed)
        }


def test_speeds_are_a_mean_over_the_last_seconds_of_work(database: Database) -> None:
    def note(pixels: int, seconds: float, *, engine: str = LITE) -> tuple[float, float]:
        note_segment(database, device="H200", engine=engine, pixels=pixels, seconds=seconds)
        return noted(database)["H200", engine]

    assert note(1000, 10) == (100, 10)
    assert note(4000, 30) == (125, 40)
    assert note(10, 1, engine=FULL) == (10, 1)
    note_segment(database, device="CPU", engine=LITE, pixels=1, seconds=1)
    assert noted(database)["H200", LITE] == (125, 40)
    note(int(100 * 10 * MEMORY_SECONDS), 10 * MEMORY_SECONDS)
    # However much came before, so many seconds at another speed count for half.
    assert note(int(300 * MEMORY_SECONDS), MEMORY_SECONDS)[0] == pytest.approx(200, rel=0.01)


def test_a_speed_that_cannot_be_noted_is_left_to_the_log(
    tmp_path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = Database(f"sqlite:///{tmp_path / 'no such folder' / 'regen.db'}")
    note_segment(nowhere, device="H200", engine=LITE, pixels=1, seconds=1)
    nowhere.close()
    empty = Database(f"sqlite:///{tmp_path / 'empty.db'}")
    note_segment(empty, device="H200", engine=LITE, pixels=1, seconds=1)
    empty.close()
    assert capsys.readouterr().out.count("speed_not_noted") == 2


def test_speeds_of_the_workers_that_are_there(
    database: Database, make_ledger: Callable[..., WorkLedger]
) -> None:
    def start(name: str, device_name: str | None, **options: object) -> None:
        Registration(make_ledger(name, **options), device="cuda:0", device_name=device_name).beat()

    for name in ("one", "two"):
        start(name, "H200")
    start("three", "CPU")
    start("four", "never measured")
    start("five", None, queues=[WorkQueue.CPU])
    start("silent", "H200")
    with database.write() as session:
        silent = session.get_one(WorkerProcess, "silent")
        silent.heartbeat_at = silent.heartbeat_at.replace(year=2020)
    for device, pixels in (("H200", 1000), ("CPU", 10), ("nobody's", 5000)):
        note_segment(database, device=device, engine=LITE, pixels=pixels, seconds=1)
    with database.read() as session:
        found = speeds_at_work(session, silent_for=90)
    assert [(speed.device, speed.pixels_per_second, speed.workers) for speed in found] == [
        ("CPU", 10, 1),
        ("H200", 1000, 2),
    ]
    outlook = Outlook.of(Cut(seconds=Fraction(4), output_pixels=10**9), found, [])
    assert outlook.speeds == {Upscaling(LITE): 2010, Upscaling(LITE, True): 2010}
    assert outlook.workers == {LITE: 3}


@pytest.fixture
def add(database: Database, file: File) -> Callable[..., Render]:
    """A render of somebody's, or of another user's."""
    others: dict[str, File] = {}

    def add(user: str | None = None, **options: object) -> Render:
        with database.write() as session:
            mine = file if user is None else others.get(user)
            if mine is None:
                mine = a_file(account_queries.add_user(session, user_id=new_id(), name=str(user)).id)
                session.add(mine)
                session.flush()
                others[str(user)] = mine
            return a_render(session, session.merge(mine), **options)

    return add


def ahead(database: Database, *renders: Render) -> list[workload.WorkAhead]:
    with database.read() as session:
        found = workload.work_ahead(
            session,
            user_id=renders[0].user_id,
            render_ids=[render.id for render in renders],
            engines=(LITE, FULL),
        )
    return [found[render.id] for render in renders]


def test_the_work_ahead_of_a_render(database, add, make_ledger, prepare) -> None:
    begun = add()
    ledger = make_ledger()
    prepare(ledger, ledger.claim(), segments=3)
    ledger.segment_done(ledger.claim(), storage_key="done")
    ledger.renew(ledger.claim(), frames_done=4)
    waits = add(engine=ENGINES[FULL])
    urgent = add(priority=5)
    slower, faster = add(target_fps="10"), add(target_fps="100")
    smoother = add(target_fps="100", retime=Retime.MOTION)
    steadier = add(stabilise=1)
    add("another")

    found = ahead(database, begun, urgent, waits, slower, faster, smoother, steadier)
    # Ten frames of three segments each, ten of them done and four of another ten.
    assert [(work.pixels / FRAME, work.parts) for work in found] == [
        (16, 2),
        (50, None),
        (50, None),
        (20, None),
        (50, None),
        (200, None),
        (50, None),
    ]
    kinds = (Upscaling(LITE), Upscaling(LITE, True), Upscaling(FULL))
    assert [tuple(work.until_then[kind] / FRAME for kind in kinds) for work in found] == [
        (16, 0, 0),
        (66, 0, 0),
        (66, 0, 50),
        (86, 0, 50),
        (136, 0, 50),
        (336, 0, 50),
        (336, 50, 50),
    ]
    with database.read() as session:
        before = workload.work_before_another(session, user_id=begun.user_id, priority=5)
        assert {kind: pixels / FRAME for kind, pixels in before.items()} == {Upscaling(LITE): 66}
        everybodys = workload.work_by_user(session)
    own = sum(work.pixels for work in everybodys if work.user_id == begun.user_id)
    assert own / FRAME == 436
    assert sorted(work.pixels / FRAME for work in everybodys if work.user_id != begun.user_id) == [50]


def test_users_share_the_workers(database, add, make_ledger) -> None:
    forecast = Forecast(database, Settings())

    def eta(render: Render) -> float | None:
        with database.read() as session:
            view = find_render(session, render_id=render.id, user_id=render.user_id)
        forecast.forget()
        return forecast.eta_seconds(view)

    first, second = add(), add()
    assert eta(first) is None
    Registration(make_ledger("gpu"), device="cuda:0", device_name="H200").beat()
    assert eta(first) is None
    note_segment(database, device="H200", engine=LITE, pixels=10 * FRAME, seconds=1)
    # Fifty frames each, ten a second.
    assert (eta(first), eta(second)) == (5, 10)
    other = add("another")
    assert (eta(first), eta(second), eta(other)) == (10, 15, 10)
    # Twice the workers; but a video of one segment is one worker's.
    Registration(make_ledger("gpu-2"), device="cuda:1", device_name="H200").beat()
    assert (eta(first), eta(second), eta(other)) == (5, 7.5, 5)
    unmeasured = add("a third", engine=ENGINES[FULL])
    assert eta(unmeasured) is None
    # Nobody knows how long that takes: it is taken for as much as this user's own.
    assert (eta(first), eta(second)) == (7.5, 12.5)


def test_one_part_is_one_workers() -> None:
    outlook = Outlook(
        cut=Cut(seconds=Fraction(4), output_pixels=1000), speeds={Upscaling(LITE): 80.0}, workers={LITE: 8}
    )

    def alone(parts: int) -> float:
        work = RenderWork(
            upscaling=Upscaling(LITE), pixels=80, parts=parts, output_pixels=0, searched_codec=None
        )
        time = outlook.time_of(work, user_id="ann", before={})
        assert time is not None
        assert time.in_turn == 1
        return time.alone

    assert (alone(1), alone(4), alone(100)) == (8, 2, 1)
    assert outlook.cut.parts(seconds=Fraction(9), output_pixels=100, frames=50) == 3
    assert outlook.cut.parts(seconds=Fraction(9), output_pixels=7001, frames=50) == 8
    assert outlook.cut.parts(seconds=Fraction(9), output_pixels=10**9, frames=50) == 50


def test_a_database_that_is_away_leaves_times_unknown(
    tmp_path, add, database, capsys: pytest.CaptureFixture[str]
) -> None:
    render = add()
    with database.read() as session:
        view = find_render(session, render_id=render.id, user_id=render.user_id)
    nowhere = Database(f"sqlite:///{tmp_path / 'no such folder' / 'regen.db'}")
    assert Forecast(nowhere, Settings()).eta_seconds(view) is None
    nowhere.close()
    assert "outlook_missing" in capsys.readouterr().out
