"""Failed attempts: which workers leave their units to others, and when a failure ends its render.

A machine or a device may be broken rather than the work. A unit that failed on one machine goes to another machine if
there is one, otherwise to another worker of the same machine; it waits for these PASS_OVER_SECONDS at most.
"""

from dataclasses import dataclass
from functools import cache

from sqlalchemy import (
    ColumnElement,
    Float,
    Select,
    String,
    Text,
    and_,
    bindparam,
    cast,
    delete,
    func,
    or_,
    select,
)
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from app.platform.database import database_now
from app.platform.lease import changed_rows
from app.platform.retry_policies import (
    EXPIRIES_PER_FAILURE,
    EXPIRIES_PER_FAILURE_IN_A_STORM,
    WORK_LEASE_EXPIRED,
)
from app.platform.secrets import new_id
from app.platform.work_kinds import WorkKind
from app.renders.tables import Render, Segment
from app.work.queries import Claim
from app.work.tables import FailedAttempt, WorkerProcess
from app.work.worker_queries import SILENT_LEASES, is_claiming

PASS_OVER_SECONDS = 120.0
# Failures on only one machine end a render after so many times the usual number, if others never try it.
PATIENCE_WITH_ONE_MACHINE = 3

# So many attempts at a unit can end within PASS_OVER_SECONDS once it rests for the longest time between them.
MOST_ENDED_BY_ONE = 1 + int(PASS_OVER_SECONDS / WORK_LEASE_EXPIRED.longest_seconds)

# Parameters of a claim. Without them no unit is passed over.
BY_WORKER = bindparam("by_worker", value="", type_=String)
HEARD_SINCE = bindparam("heard_since", value=-90.0, type_=Float)

_OfUnit = aliased(FailedAttempt)

MACHINE = func.coalesce(WorkerProcess.machine, WorkerProcess.host)


@dataclass(frozen=True, kw_only=True)
class FailureHistory:
    """Where a unit has failed so far.

    `has_untried`: a worker that could take it runs on a machine where it did not fail. `machines` and
    `condemning` count machines: all, and those whose error said that no attempt can succeed.
    """

    machines: int
    condemning: int
    has_untried: bool

    def is_final(self, *, is_permanent: bool, failures: int, max_attempts: int) -> bool:
        """Whether the recorded failure ends the render. One machine's verdict is enough only if there is no
        other machine."""
        if is_permanent and (self.condemning > 1 or not self.has_untried):
            return True
        if self.machines == 1 and self.has_untried:
            return failures >= PATIENCE_WITH_ONE_MACHINE * max_attempts
        return failures >= max_attempts


@cache
def is_for_others(table: type[Render] | type[Segment], kind: WorkKind) -> ColumnElement[bool]:
    """The unit failed recently on the claiming worker's machine, and a worker on another machine could take it.

    For rows that never failed only the first condition is evaluated.
    """
    of_unit = and_(_OfUnit.unit_id == FailedAttempt.unit_id, _OfUnit.kind == FailedAttempt.kind)
    own_machine = select(MACHINE).where(WorkerProcess.name == BY_WORKER).correlate(None).scalar_subquery()
    of_render = select(Render.engine).where(Render.id == FailedAttempt.render_id)
    engine = of_render.correlate(FailedAttempt).scalar_subquery()
    others = _able_workers(kind, engine, heard_since=database_now(plus_seconds=HEARD_SINCE))

    def untried(
        place: ColumnElement[str] | InstrumentedAttribute[str], tried: InstrumentedAttribute[str]
    ) -> ColumnElement[bool]:
        elsewhere = place.not_in(select(tried).where(of_unit).correlate(FailedAttempt))
        return others.where(elsewhere).correlate(FailedAttempt).exists()

    by_machine = and_(FailedAttempt.machine == own_machine, untried(MACHINE, _OfUnit.machine))
    by_worker = and_(FailedAttempt.worker == BY_WORKER, untried(WorkerProcess.name, _OfUnit.worker))
    # Written down once in a statement, however often it is asked for: what is long to plan is long to send, too.
    units = (
        select(FailedAttempt.unit_id)
        .where(
            FailedAttempt.kind == kind.value,
            FailedAttempt.failed_at > database_now(plus_seconds=-PASS_OVER_SECONDS),
            or_(by_machine, by_worker),
        )
        .correlate(None)
        .cte(f"{kind.value}_by_others")
        .prefix_with("MATERIALIZED", dialect="postgresql")
    )
    return and_(table.failures > 0, table.id.in_(select(units.c.unit_id)))


def upscaling_failed_lately() -> ColumnElement[bool]:
    """An attempt at one of the render's segments failed so recently that its machine leaves it to others."""
    return (
        select(FailedAttempt.id)
        .where(
            FailedAttempt.render_id == Render.id,
            FailedAttempt.kind == WorkKind.UPSCALE.value,
            FailedAttempt.failed_at > database_now(plus_seconds=-PASS_OVER_SECONDS),
        )
        .correlate(Render)
        .exists()
    )


def note(
    session: Session, claim: Claim, *, worker: str, machine: str, is_permanent: bool, lease_seconds: float
) -> FailureHistory:
    """Record that the claim's attempt failed. Returns the unit's history including it."""
    row = FailedAttempt(
        id=new_id(),
        unit_id=claim.lease.row_id,
        kind=claim.kind.value,
        render_id=claim.render_id,
        worker=worker,
        machine=machine,
        is_permanent=is_permanent,
        failed_at=database_now(),
    )
    session.add(row)
    session.flush()
    of_unit = and_(FailedAttempt.unit_id == row.unit_id, FailedAttempt.kind == row.kind)
    attempts = session.execute(select(FailedAttempt.machine, FailedAttempt.is_permanent).where(of_unit)).all()
    machines = {machine for machine, _ in attempts}
    engine = select(Render.engine).where(Render.id == claim.render_id).scalar_subquery()
    heard_since = database_now(plus_seconds=-SILENT_LEASES * lease_seconds)
    untried = _able_workers(claim.kind, engine, heard_since=heard_since).where(MACHINE.not_in(machines))
    return FailureHistory(
        machines=len(machines),
        condemning=len({machine for machine, condemned in attempts if condemned}),
        has_untried=session.scalar(untried.limit(1)) is not None,
    )


def others_failed(session: Session, claim: Claim) -> bool:
    """Whether something of another render failed lately: what killed this one's ffmpeg may be no fault of its own."""
    lately = FailedAttempt.failed_at > database_now(plus_seconds=-PASS_OVER_SECONDS)
    query = select(FailedAttempt.id).where(lately, FailedAttempt.render_id != claim.render_id)
    return session.scalar(query.limit(1)) is not None


def expiries_per_failure(session: Session, claim: Claim, *, lease_seconds: float) -> int:
    """How many attempts at the unit that were ended from outside count as a failure.

    In a storm more workers died, and attempts of others failed, lately than the unit can have ended, which rests
    between its attempts: then most of what is ended is innocent.
    """
    lately = -PASS_OVER_SECONDS
    failed = select(func.count()).where(
        FailedAttempt.failed_at > database_now(plus_seconds=lately),
        FailedAttempt.render_id != claim.render_id,
    )
    died = select(func.count()).where(
        WorkerProcess.heartbeat_at < database_now(plus_seconds=-lease_seconds),
        WorkerProcess.heartbeat_at > database_now(plus_seconds=lately - lease_seconds),
    )
    ended = sum(session.scalar(query) or 0 for query in (failed, died))
    return EXPIRIES_PER_FAILURE if ended <= MOST_ENDED_BY_ONE else EXPIRIES_PER_FAILURE_IN_A_STORM


def forget(session: Session, *, older_than_seconds: float) -> None:
    """Remove attempts that failed so long ago."""
    is_old = FailedAttempt.failed_at < database_now(plus_seconds=-older_than_seconds)
    changed_rows(session, delete(FailedAttempt).where(is_old))


def _able_workers(
    kind: WorkKind, engine: ColumnElement[str] | InstrumentedAttribute[str], *, heard_since: database_now
) -> Select[str]:
    """Names of live, claiming workers that could take a unit of this kind of a render with this engine."""
    query = select(WorkerProcess.name).where(is_claiming(kind.queue, heard_since=heard_since))
    if kind is WorkKind.UPSCALE:
        query = query.where(cast(WorkerProcess.engines, Text).contains('"' + engine + '"'))
    return query
