"""Deliveries: leased rows, each of which is sent to an address of a user's, again after growing pauses, or given up.

What they have in common, whatever is sent: their columns and queries, and a process's interface to them.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from sqlalchemy import ColumnElement, Index, Row, Select, String, func, not_, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.platform.database import Database, database_now
from app.platform.lease import Lease, Leased, changed_rows, claim_first
from app.platform.retry_policies import RetryPolicy
from app.platform.tables import partial_index

# The status of what has not ended and is in nobody's hands.
PENDING = "pending"
LONGEST_RETRY_AFTER_SECONDS = 24 * 3600.0
STOPPED = "The server stopped before the attempt had ended."


class Delivery(Leased):
    """Columns of a table of deliveries; it also has a `due_index`.

    `retry_at` is when the next attempt is due, the end of the lease during an attempt, and None once the delivery has
    ended: one index finds all that are due. `failures` counts those since the delivery was added or asked for again.
    """

    if TYPE_CHECKING:
        user_id: Mapped[str]

    status: Mapped[str] = mapped_column(String(16))
    retry_at: Mapped[datetime | None] = mapped_column("due_at")


def due_index(table_name: str) -> Index:
    return partial_index(f"ix_{table_name}_due", "due_at", where="due_at IS NOT NULL")


@dataclass(frozen=True, kw_only=True)
class DueDelivery:
    """A delivery that can be claimed. `attempt` is the number of its attempts so far; `host` is that of its receiver.

    `is_failing`: the last attempt at it, or at its receiver, failed.
    """

    id: str
    user_id: str
    attempt: int
    is_failing: bool
    host: str = ""


@dataclass(frozen=True, kw_only=True)
class Claimed(DueDelivery):
    """A delivery that this process holds for one attempt. `claimed_at` is on the monotonic clock."""

    table: ClassVar[type[Delivery]]

    failures: int
    url: str = field(repr=False)
    claimed_at: float = field(default_factory=time.monotonic)

    @property
    def elapsed_seconds(self) -> float:
        return time.monotonic() - self.claimed_at

    @property
    def lease(self) -> Lease:
        return Lease(self.table, self.id, self.attempt)


@dataclass(frozen=True, kw_only=True)
class AttemptResult:
    """The result of an attempt. Without `error` it was delivered; `detail` is for the log.

    `is_final`: no further attempt would succeed. `retry_after_seconds` is the pause that the receiver asked for.
    """

    error: str | None = None
    detail: str | None = None
    is_final: bool = False
    retry_after_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Full:
    """What has enough in hand: users, receivers (user and host), and all that are failing together."""

    users: Collection[str] = ()
    receivers: Collection[tuple[str, str]] = ()
    failing: bool = False


@dataclass(frozen=True, kw_only=True)
class Backlog:
    """`waiting` counts deliveries that have not ended; `overdue_seconds` is how long one of them has been
    due, 0 when dispatchers keep up."""

    waiting: int
    overdue_seconds: float


C = TypeVar("C", bound=Claimed)
R = TypeVar("R", bound=AttemptResult)


class DeliveryLedger(ABC, Generic[C, R]):
    """One process's interface to the deliveries of one table. Each method is one short transaction."""

    policy: ClassVar[RetryPolicy]

    def __init__(self, *, database: Database, lease_seconds: float) -> None:
        self.database = database
        self.lease_seconds = lease_seconds

    def due(self, *, limit: int, full: Full = Full()) -> Sequence[DueDelivery]:
        """Up to `limit` claimable deliveries but those of whom is full, the longest due first. Changes nothing."""
        with self.database.read() as session:
            return [DueDelivery(**row._mapping) for row in self._due_rows(session, full, limit)]

    @abstractmethod
    def _due_rows(self, session: Session, full: Full, limit: int) -> Sequence[Row[Any]]:
        """By a `due_query`, whose further columns are fields of `DueDelivery`."""

    @abstractmethod
    def claim(self, due: DueDelivery) -> C | None:
        """Lease the delivery. None when another process was faster, or when there is nothing to send any more."""

    def keep(self, claimed: C) -> bool:
        """Renew the lease. False when it is lost."""
        with self.database.write() as session:
            until = database_now(plus_seconds=self.lease_seconds)
            return claimed.lease.renew(session, seconds=self.lease_seconds, retry_at=until)

    def note(self, claimed: C, result: R) -> None:
        """End the delivery after its attempt, or release it for another after a growing pause."""
        pause = None
        if result.error is not None and not result.is_final:
            pause = pause_after(self.policy, claimed.failures, result.retry_after_seconds)
        if self._end(claimed, result) if pause is None else self._postpone(claimed, result, pause):
            self._tell(claimed, result, pause)

    @abstractmethod
    def _end(self, claimed: C, result: R) -> bool:
        """End the delivery, as delivered or, with an error, as failed. False when the lease is lost."""

    @abstractmethod
    def _postpone(self, claimed: C, result: R, pause: float) -> bool:
        """Release the delivery for another attempt after so many seconds. False when the lease is lost."""

    @abstractmethod
    def _tell(self, claimed: C, result: R, pause: float | None) -> None:
        """Log the result that was recorded; `pause` is None at the end."""

    @abstractmethod
    def give_back(self, claimed: C) -> None:
        """Release the delivery when this process stops: due at once, and not counted as a failure."""


def pause_after(policy: RetryPolicy, failures: int, retry_after_seconds: float | None = None) -> float | None:
    """Seconds until the next attempt, after one more failure than `failures`. None when the delivery is given up."""
    if failures >= len(policy.steps_seconds):
        return None
    asked_for = min(retry_after_seconds or 0.0, LONGEST_RETRY_AFTER_SECONDS)
    return max(policy.pause(failures + 1), asked_for)


def due_query(
    table: type[Delivery], *columns: Any, full: Full, limit: int, is_failing: ColumnElement[bool]
) -> Select[Any]:
    """The due rows, as fields of `DueDelivery`, but those of full users and, if they are full, those that fail."""
    query = select(table.id, table.user_id, table.attempt, is_failing.label("is_failing"), *columns).where(
        table.retry_at <= database_now()
    )
    if full.users:
        query = query.where(table.user_id.not_in(full.users))
    if full.failing:
        query = query.where(not_(is_failing))
    return query.order_by(table.retry_at, table.id).limit(limit)


def claim_due(
    session: Session, table: type[Delivery], due: DueDelivery, *, lease_seconds: float, **values: Any
) -> bool:
    """Lease the delivery for its next attempt. False when another process was faster."""
    own = select(table.id).where(
        table.id == due.id, table.attempt == due.attempt, table.retry_at <= database_now()
    )
    until = database_now(plus_seconds=lease_seconds)
    return changed_rows(session, claim_first(table, own, seconds=lease_seconds, retry_at=until, **values))


def ask_again(session: Session, table: type[Delivery], delivery_id: str, **values: Any) -> bool:
    """Make the delivery due now, whatever became of it. False if it does not exist, or is being sent."""
    idle = update(table).where(table.id == delivery_id, table.lease_expires_at.is_(None))
    return changed_rows(session, idle.values(status=PENDING, retry_at=database_now(), failures=0, **values))


def read_backlog(session: Session, table: type[Delivery]) -> Backlog:
    waiting = select(func.count(), func.min(table.retry_at), database_now()).where(
        table.retry_at.is_not(None)
    )
    count, first_due, now = session.execute(waiting).one()
    overdue_seconds = 0.0 if first_due is None else max(0.0, (now - first_due).total_seconds())
    return Backlog(waiting=count, overdue_seconds=overdue_seconds)
