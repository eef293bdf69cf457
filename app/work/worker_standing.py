"""Whether a worker claims work: not while an operator drains it, nor while it keeps itself in quarantine."""

from dataclasses import dataclass

from sqlalchemy import case, exists, func, select, update
from sqlalchemy.orm import Session, aliased

from app.platform.database import database_now
from app.platform.lease import changed_rows
from app.platform.work_kinds import WorkKind
from app.work.tables import FailedAttempt, WorkerProcess
from app.work.worker_queries import SILENT_LEASES

# So many failed attempts in a row on this worker, at two units or more, while other workers succeeded.
SUSPICIOUS_FAILURES = 3
SUSPICIOUS_UNITS = 2

_Other = aliased(WorkerProcess)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What keeps a worker from claiming: nothing, for a worker without a row."""

    is_drained: bool = False
    is_quarantined: bool = False


def standing_of(session: Session, *, name: str) -> Standing:
    row = session.execute(
        select(WorkerProcess.drained_since.is_not(None), WorkerProcess.quarantined_since.is_not(None)).where(
            WorkerProcess.name == name
        )
    ).one_or_none()
    return Standing() if row is None else Standing(is_drained=row[0], is_quarantined=row[1])


def note_failure(session: Session, *, name: str, kind: WorkKind, lease_seconds: float) -> bool:
    """Count one more failed unit of this worker.

    Returns whether the worker rather than the work is to blame: its last attempts failed, at several units
    that failed nowhere else, and another worker of the queue has completed a unit since the first of them. A
    worker without a row is never to blame.
    """
    counted = (
        update(WorkerProcess)
        .where(WorkerProcess.name == name)
        .values(
            failures_in_a_row=WorkerProcess.failures_in_a_row + 1,
            first_failed_at=case(
                (WorkerProcess.failures_in_a_row == 0, database_now()), else_=WorkerProcess.first_failed_at
            ),
        )
        .returning(WorkerProcess.failures_in_a_row, WorkerProcess.first_failed_at)
        .execution_options(synchronize_session=False)
    )
    row = session.execute(counted).one_or_none()
    if row is None or row[0] < SUSPICIOUS_FAILURES:
        return False
    others_succeed = exists().where(
        _Other.name != name,
        _Other.queues.contains(kind.queue.value),
        _Other.heartbeat_at > database_now(plus_seconds=-SILENT_LEASES * lease_seconds),
        _Other.done_at > row[1],
    )
    elsewhere = select(FailedAttempt.unit_id).where(FailedAttempt.worker != name)
    alone = select(func.count(FailedAttempt.unit_id.distinct())).where(
        FailedAttempt.worker == name,
        FailedAttempt.failed_at >= row[1],
        FailedAttempt.unit_id.not_in(elsewhere),
    )
    return bool(session.scalar(select(others_succeed))) and (session.scalar(alone) or 0) >= SUSPICIOUS_UNITS


def quarantine(session: Session, *, name: str, reason: str) -> None:
    """Record that the worker claims nothing until it has tested itself, and why."""
    since = func.coalesce(WorkerProcess.quarantined_since, database_now())
    _change(session, name, quarantined_since=since, quarantine_reason=reason)


def recover(session: Session, *, name: str) -> None:
    """End the quarantine."""
    _change(
        session,
        name,
        quarantined_since=None,
        quarantine_reason=None,
        failures_in_a_row=0,
        first_failed_at=None,
    )


def drain(session: Session, *, name: str) -> bool:
    """Stop the worker from claiming, from its next heartbeat on. False if there is no such worker."""
    return _change(session, name, drained_since=func.coalesce(WorkerProcess.drained_since, database_now()))


def resume(session: Session, *, name: str) -> bool:
    """End the worker's drain and its quarantine. False if there is no such worker."""
    recover(session, name=name)
    return _change(session, name, drained_since=None)


def _change(session: Session, name: str, **values: object) -> bool:
    return changed_rows(session, update(WorkerProcess).where(WorkerProcess.name == name).values(**values))
