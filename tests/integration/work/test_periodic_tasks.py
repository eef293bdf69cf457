"""What one of all workers does from time to time."""

from functools import partial

import pytest
from sqlalchemy import update

from app.platform.database import Database, database_now
from app.platform.secrets import new_id
from app.platform.settings import Settings
from app.platform.storage.keys import input_key, segment_key
from app.platform.storage.local import LocalStorage
from app.renders.tables import Render
from app.work.periodic_tasks import claim_run
from app.work.tables import PeriodicTask
from tests.integration.work.test_work_at_once import side_by_side
from worker.cleanup_job import CleanUpJob


def take(database: Database, worker: str, name: str = "a chore") -> bool:
    with database.write() as session:
        return claim_run(session, name, worker=worker, every_seconds=60)


def make_due(database: Database) -> None:
    with database.write() as session:
        session.execute(update(PeriodicTask).values(due_at=database_now(plus_seconds=-1)))


def test_a_chore_is_one_workers_at_a_time(database: Database) -> None:
    for _round in range(3):
        taken = side_by_side(*(partial(take, database, f"worker-{number}") for number in range(6)))
        assert taken.count(True) == 1
        assert not take(database, "late")
        assert take(database, "late", name=f"another {_round}")
        make_due(database)


@pytest.fixture
def storage(tmp_path):
    return LocalStorage(root=tmp_path / "storage", url_key=b"a key")


def test_a_clean_up_job_does_what_is_due_and_leaves_it_to_others_else(
    database, storage, add_render, tmp_path, monkeypatch
):
    render = add_render()
    with database.write() as session:
        session.execute(update(Render).values(status="failed", ended_at=database_now(plus_seconds=-3600)))

    def put(key: str) -> None:
        (tmp_path / "made").write_bytes(b"x")
        storage.put_file(key, tmp_path / "made", content_type="video/mp4")

    left = segment_key(render.id, position=0, attempt=1)
    orphan = input_key(new_id())
    put(left)
    put(orphan)

    def clean_up_job(worker: str) -> CleanUpJob:
        settings = Settings(data_dir=tmp_path)
        return CleanUpJob(settings=settings, database=database, storage=storage, worker=worker)

    with monkeypatch.context() as patched:
        # What is raised ends no thread, and not the other chore either.
        patched.setattr("worker.cleanup_job.CleanUp.run", lambda _self: 1 / 0)
        clean_up_job("first").run_due_tasks()
    assert {stored.key for stored in storage.list("")} == {left, orphan}
    clean_up_job("second").run_due_tasks()
    assert {stored.key for stored in storage.list("")} == {left, orphan}, "it is not due again yet"
    make_due(database)
    clean_up_job("second").run_due_tasks()
    assert {stored.key for stored in storage.list("")} == {orphan}, "and the orphan is too young"
