"""Requests that may be made twice and shall have one effect: what the first one made is remembered with its key.

The key's row is written in the transaction of what is made, so there is no state between the two: of many requests at
once one commits, and the others find out when they write theirs.
"""

from dataclasses import dataclass

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.accounts.tables import IdempotencyKey
from app.platform import clock
from app.platform.errors import Conflict


class AlreadyMade(Exception):
    """Another request with the same key was faster; `recall` knows what it made."""


@dataclass(frozen=True, kw_only=True)
class Once:
    """A request with a key. `fingerprint` is that of all that it asks for."""

    user_id: str
    key: str
    fingerprint: str


def recall(session: Session, once: Once) -> str | None:
    """The id of what was made for this key; None when it is new. Raises Conflict when that was asked otherwise."""
    row = session.get(IdempotencyKey, (once.user_id, once.key))
    if row is None:
        return None
    if row.fingerprint != once.fingerprint:
        raise Conflict("This Idempotency-Key was used for a different request. Use a new one.")
    return row.made_id


def remember(session: Session, once: Once | None, *, made_id: str) -> None:
    """To be called in the transaction that makes it, nothing of which may be kept when this raises AlreadyMade."""
    if once is None:
        return
    session.add(
        IdempotencyKey(
            user_id=once.user_id,
            key=once.key,
            fingerprint=once.fingerprint,
            made_id=made_id,
            created_at=clock.now(),
        )
    )
    try:
        session.flush()
    except IntegrityError as error:
        raise AlreadyMade from error
