"""Periodic tasks: one of all workers runs each at intervals."""

from sqlalchemy import update
from sqlalchemy.orm import Session

from app.platform.database import database_now, insert_into
from app.platform.lease import changed_rows
from app.work.tables import PeriodicTask


def claim_run(session: Session, name: str, *, worker: str, every_seconds: float) -> bool:
    """Whether the task was due and this worker now has the run. The next one is due in `every_seconds`."""
    session.execute(
        insert_into(session, PeriodicTask)
        .values(name=name, due_at=database_now())
        .on_conflict_do_nothing(index_elements=["name"])
    )
    return changed_rows(
        session,
        update(PeriodicTask)
        .where(PeriodicTask.name == name, PeriodicTask.due_at <= database_now())
        .values(due_at=database_now(plus_seconds=every_seconds), worker=worker),
    )


def release_run(session: Session, name: str, *, worker: str) -> None:
    """Make the task due again for any worker, after this worker's run failed."""
    changed_rows(
        session,
        update(PeriodicTask)
        .where(PeriodicTask.name == name, PeriodicTask.worker == worker)
        .values(due_at=database_now()),
    )
