"""Leases: rows on which one process at a time works, and the operations that change a row's holder.

Every move is one compare-and-set on the database's clock. A claim starts the row's next attempt and a lease; a later
move names that attempt and changes nothing once the row has another one, or no lease.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Executable,
    Integer,
    Select,
    String,
    Update,
    and_,
    bindparam,
    case,
    exists,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.platform.database import ONE, count_changed, database_now

# Parameters of statements that are built once.
OF_ROW = bindparam("of_row", type_=String)
OF_ATTEMPT = bindparam("of_attempt", type_=Integer)


class Leased:
    """Columns of a table whose rows are leased.

    `attempt` grows with every claim. `lease_expires_at` is set while the row is held. `retry_at` is when its next
    attempt may begin, None for at once. `failures` counts attempts that failed.
    """

    if TYPE_CHECKING:
        id: Mapped[str]
        status: Mapped[Any]

    attempt: Mapped[int] = mapped_column(default=0)
    failures: Mapped[int] = mapped_column(default=0)
    lease_expires_at: Mapped[datetime | None]
    retry_at: Mapped[datetime | None]


class LeasedToWorker(Leased):
    """As `Leased`; `worker` is the name of the holder."""

    worker: Mapped[str | None] = mapped_column(String(100))


@dataclass(frozen=True)
class Lease:
    """One attempt's lease of one row."""

    table: type[Leased]
    row_id: str
    attempt: int

    def renew(self, session: Session, *, seconds: float, **values: Any) -> bool:
        """Extend the lease to `seconds` from now. False when it is lost."""
        statement = update(self.table).where(self._is_held)
        return changed_rows(
            session, statement.values(lease_expires_at=database_now(plus_seconds=seconds), **values)
        )

    def release(self, session: Session, *, rest_seconds: float | None = None, **values: Any) -> bool:
        """End the lease; `values` are the row's new values. False if the lease is lost."""
        return revoke(session, self.table, self._is_held, rest_seconds=rest_seconds, **values)

    def release_by(self, session: Session, statement: Update, **parameters: object) -> bool:
        """As `release`, by a `release_statement` with these parameters."""
        held = {OF_ROW.key: self.row_id, OF_ATTEMPT.key: self.attempt, **parameters}
        return session.connection().execute(statement, held).rowcount > 0

    def charge(self, session: Session, counter: str) -> int | None:
        """Add one to the column of that name. Returns the new count; None when the lease is lost."""
        column = getattr(self.table, counter)
        statement = update(self.table).where(self._is_held).values({column: column + 1}).returning(column)
        count: int | None = session.scalar(statement.execution_options(synchronize_session=False))
        return count

    def has_left(self, session: Session, *where: ColumnElement[bool], status: StrEnum) -> bool:
        """Whether the row has this status, set by this attempt and not by a later one, and `where` holds."""
        left = exists().where(
            self.table.id == self.row_id,
            self.table.attempt == self.attempt,
            self.table.status == status,
            *where,
        )
        return bool(session.scalar(select(left)))

    @property
    def _is_held(self) -> ColumnElement[bool]:
        return _is_held(self.table, self.row_id, self.attempt)


def release_statement(table: type[Leased], **values: Any) -> Update:
    """The statement of `Lease.release_by`, to be built once where it is executed often."""
    held = update(table).where(_is_held(table, OF_ROW, OF_ATTEMPT))
    return held.values(**_released(table, **values)).execution_options(synchronize_session=False)


def claim_first(
    table: type[Leased],
    candidates: Select[str],
    *,
    seconds: float | BindParameter[float],
    **values: Any,
) -> Update:
    """The statement that leases the first of `candidates`, a query of ids, for its row's next attempt.

    Rows that another transaction has locked are passed over. An expired lease counts as a failure.
    """
    first = (
        candidates.limit(ONE).with_for_update(skip_locked=True, of=table).correlate(None).scalar_subquery()
    )
    expired = case((table.lease_expires_at.is_not(None), 1), else_=0)
    lease = {
        "attempt": table.attempt + 1,
        "failures": table.failures + expired,
        "lease_expires_at": database_now(plus_seconds=seconds),
        "retry_at": None,
    }
    statement = update(table).where(table.id == first).values(**{**lease, **values})
    return statement.execution_options(synchronize_session=False)


def revoke(
    session: Session,
    table: type[Leased],
    *where: ColumnElement[bool],
    rest_seconds: float | None = None,
    **values: Any,
) -> bool:
    """End the leases of these rows, whichever process holds them. Returns whether there were any rows.

    The next attempt may begin in `rest_seconds`. With None `retry_at` is cleared.
    """
    released = _released(table, rest_seconds=rest_seconds, **values)
    return changed_rows(session, update(table).where(*where).values(**released))


def _released(table: type[Leased], *, rest_seconds: float | None = None, **values: Any) -> dict[str, Any]:
    released: dict[str, Any] = {
        "lease_expires_at": None,
        "retry_at": None if rest_seconds is None else database_now(plus_seconds=rest_seconds),
    }
    if issubclass(table, LeasedToWorker):
        released["worker"] = None
    return released | values


def _is_held(
    table: type[Leased], row_id: str | BindParameter[str], attempt: int | BindParameter[int]
) -> ColumnElement[bool]:
    return and_(table.id == row_id, table.attempt == attempt, table.lease_expires_at.is_not(None))


def is_expired(table: type[Leased]) -> ColumnElement[bool]:
    return table.lease_expires_at < database_now()


def is_rested(table: type[Leased]) -> ColumnElement[bool]:
    return or_(table.retry_at.is_(None), table.retry_at <= database_now())


def changed_rows(session: Session, statement: Executable) -> bool:
    """Whether the statement changed any row."""
    return count_changed(session, statement) > 0
