"""Workers are known while they live, with what they have in hand; nothing of theirs depends on it."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update
from typer.testing import CliRunner

from app import migrations
from app.cli.application import application
from app.platform.database import Database, database_now
from app.platform.errors import Unavailable
from app.platform.progress import Progress
from app.platform.settings import Settings
from app.platform.work_kinds import WorkKind, WorkQueue
from app.renders.tables import Render
from app.work.ledger import WorkLedger
from app.work.tables import PeriodicTask, WorkerProcess
from app.work.workers import FORGOTTEN_AFTER_SECONDS, WorkerView, count_workers, list_workers
from tests.servers.process import wait_until
from worker.registration import LONGEST_NAME, Registration, worker_name

MakeLedger = Callable[..., WorkLedger]


def known(database: Database) -> dict[str, WorkerView]:
    with database.read() as session:
        return {view.name: view for view in list_workers(session)}


def test_a_worker_is_known_from_its_start_to_its_end_with_what_it_has_in_hand(
    database: Database,
    make_ledger: MakeLedger,
    add_render: Callable[[], Render],
    prepare: Callable[..., object],
) -> None:
    ledger = make_ledger(queues=list(WorkQueue))
    registration = Registration(ledger, device="cuda:1")
    registration.start()
    wait_until(lambda: "worker-1" in known(database), what="the worker is registered")
    view = known(database)["worker-1"]
    assert (view.device, set(view.queues), view.kind, view.units_done) == ("cuda:1", set(WorkQueue), None, 0)
    assert view.is_alive(lease_seconds=30)

    render = add_render()
    claim = ledger.claim()
    view = known(database)["worker-1"]
    assert (view.kind, view.render_id, view.segment_id) == (WorkKind.PREPARE, render.id, None)
    prepare(ledger, claim, segments=2)
    assert known(database)["worker-1"].kind is None
    claim = ledger.claim()
    assert claim is not None
    assert known(database)["worker-1"].segment_id == claim.segment_id
    ledger.hand_back(claim)
    view = known(database)["worker-1"]
    assert (view.kind, view.segment_id, view.units_done) == (None, None, 1)

    registration.stop()
    assert known(database) == {}


def test_a_silent_worker_is_told_apart_and_forgotten_after_a_day(
    database: Database, make_ledger: MakeLedger
) -> None:
    def silent_for(seconds: float) -> WorkerView | None:
        with database.write() as session:
            session.execute(
                update(WorkerProcess)
                .where(WorkerProcess.name == "old")
                .values(heartbeat_at=database_now(plus_seconds=-seconds))
            )
            session.execute(update(PeriodicTask).values(due_at=database_now()))
        make_ledger("new").take_sweep(every_seconds=60)
        return known(database).get("old")

    for name in ("old", "new"):
        Registration(make_ledger(name), device="cpu").beat()
    view = silent_for(89)
    assert view is not None and view.is_alive(lease_seconds=30)
    view = silent_for(91)
    assert view is not None and not view.is_alive(lease_seconds=30)
    assert silent_for(FORGOTTEN_AFTER_SECONDS + 1) is None
    assert list(known(database)) == ["new"]
    Registration(make_ledger("old"), device="cpu").beat()  # it lives after all
    assert set(known(database)) == {"new", "old"}


def test_a_worker_whose_work_does_not_move_is_told_apart_though_it_is_alive(
    database: Database, make_ledger: MakeLedger, add_render: Callable[[], Render]
) -> None:
    """Its threads go on, and its lease is renewed; but the main thread hangs."""
    work = Progress()
    ledger = make_ledger(queues=list(WorkQueue))
    registration = Registration(ledger, device="cpu", work=work)
    registration.beat()
    assert known(database)["worker-1"].progress_at is None, "it is idle"
    add_render()
    assert ledger.claim() is not None
    registration._work.tick(89)
    registration.beat()
    assert not known(database)["worker-1"].is_stalled(lease_seconds=30)
    registration._work.tick(2)
    registration.beat()
    view = known(database)["worker-1"]
    assert view.is_alive(lease_seconds=30) and view.is_stalled(lease_seconds=30)
    with database.read() as session:
        workforce = count_workers(session, lease_seconds=30)
    assert (workforce.alive, workforce.stalled, workforce.missing) == (1, 1, None)
    assert workforce.warnings == ["Workers that hold stalled work: 1. `regen workers` names them."]
    work.beat()
    registration._work.tick(5)
    registration.beat()
    assert not known(database)["worker-1"].is_stalled(lease_seconds=30)


@pytest.mark.parametrize(
    ("queues", "missing"),
    [
        ([], "No worker is running, so renders wait until one is started."),
        (["cpu"], "No worker of the queue `gpu` is running, so renders wait until one is started."),
        (["gpu"], "No worker of the queue `cpu` is running, so renders wait until one is started."),
        (["cpu", "gpu"], None),
    ],
)
def test_the_queue_that_no_worker_serves_is_named(
    database: Database, make_ledger: MakeLedger, queues: list[str], missing: str | None
) -> None:
    for queue in queues:
        Registration(make_ledger(queue, queues=[WorkQueue(queue)]), device="cpu").beat()
    with database.read() as session:
        assert count_workers(session, lease_seconds=30).missing == missing


def test_one_of_all_workers_sweeps_in_an_interval(database: Database, make_ledger: MakeLedger) -> None:
    first, second = make_ledger("first"), make_ledger("second")
    assert first.take_sweep(every_seconds=600)
    assert not second.take_sweep(every_seconds=600)
    assert not first.take_sweep(every_seconds=600)
    second.leave_sweep()  # which is not its own
    assert not second.take_sweep(every_seconds=600)
    first.leave_sweep()
    assert second.take_sweep(every_seconds=600)


def test_a_database_that_is_away_ends_no_registration(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    database = Database(f"sqlite:///{tmp_path}/own.db")
    migrations.upgrade(database)
    ledger = WorkLedger(database=database, worker="worker-1", lease_seconds=0.3, max_attempts=3)
    registration = Registration(ledger, device="cpu")
    beat = registration.beat
    faults = [Unavailable("away"), RuntimeError("a defect"), Unavailable("away")]

    def fails_at_first() -> None:
        if faults:
            raise faults.pop()
        beat()

    monkeypatch.setattr(registration, "beat", fails_at_first)
    registration.start()
    wait_until(lambda: "worker-1" in known(database), what="the worker is registered after all")
    registration.stop()
    database.close()


def test_names_fit_their_column_and_never_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "h" * 200)
    names = {worker_name() for _ in range(20)}
    assert len(names) == 20
    assert all(len(name) <= LONGEST_NAME for name in names)


def test_the_command_lists_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REGEN_DATA_DIR", str(tmp_path))
    database = Database(Settings().resolved_database_url)
    migrations.upgrade(database)
    for name in ("alive-1", "silent-1"):
        ledger = WorkLedger(database=database, worker=name, lease_seconds=30, max_attempts=3)
        Registration(ledger, device="cpu").beat()
    with database.write() as session:
        long_ago = session.get_one(WorkerProcess, "silent-1").heartbeat_at - timedelta(hours=1)
        session.get_one(WorkerProcess, "silent-1").heartbeat_at = long_ago
    table = CliRunner().invoke(application, ["workers"], env={"COLUMNS": "200"})
    assert table.exit_code == 0, table.output
    assert "alive-1" in table.stdout and "idle" in table.stdout
    assert f"silent since {long_ago:%Y-%m-%d %H:%M:%S}" in table.stdout
    rows = json.loads(CliRunner().invoke(application, ["workers", "--json"]).stdout)["workers"]
    assert {row["name"]: row["alive"] for row in rows} == {"alive-1": True, "silent-1": False}
    database.close()
