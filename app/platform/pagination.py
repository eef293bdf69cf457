"""Keyset pagination, newest first: a cursor names the last row of a page, so that new rows shift nothing."""

import base64
import binascii
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

from sqlalchemy import Select, and_, or_
from sqlalchemy.orm import Session

from app.platform.errors import InvalidRequest
from app.platform.quoting import received
from app.platform.secrets import is_id
from app.platform.tables import ListedTable

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Row = TypeVar("Row", bound=ListedTable)


@dataclass(frozen=True, kw_only=True)
class Page(Generic[Row]):
    """One page of rows. `cursor` is that of the next page, None on the last."""

    rows: Sequence[Row]
    cursor: str | None


@dataclass(frozen=True, kw_only=True)
class Cursor:
    """The position of a row in its list."""

    created_at: datetime
    id: str

    def __str__(self) -> str:
        """The opaque, URL-safe text for clients."""
        microseconds = (self.created_at - EPOCH) // timedelta(microseconds=1)
        return (
            base64.urlsafe_b64encode(struct.pack(">q", microseconds) + self.id.encode()).decode().rstrip("=")
        )

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """Raises InvalidRequest for a text that `str` did not make."""
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            (microseconds,) = struct.unpack(">q", raw[:8])
            found = cls(created_at=EPOCH + timedelta(microseconds=microseconds), id=raw[8:].decode("ascii"))
        except (binascii.Error, struct.error, ValueError, OverflowError) as error:
            raise InvalidRequest(f"`cursor` is not one that a page ended with{received(text)}") from error
        if not is_id(found.id):
            raise InvalidRequest(f"`cursor` is not one that a page ended with{received(text)}")
        return found


def read_page(
    session: Session, query: Select[Row], table: type[Row], *, limit: int, cursor: str | None
) -> Page[Row]:
    """Up to `limit` rows of the query after the cursor. Raises InvalidRequest for an invalid cursor."""
    query = query.order_by(table.created_at.desc(), table.id.desc()).limit(limit + 1)
    if cursor is not None:
        last = Cursor.parse(cursor)
        query = query.where(
            or_(
                table.created_at < last.created_at,
                and_(table.created_at == last.created_at, table.id < last.id),
            )
        )
    rows = session.scalars(query).all()
    if len(rows) <= limit:
        return Page(rows=rows, cursor=None)
    ending = rows[limit - 1]
    return Page(rows=rows[:limit], cursor=str(Cursor(created_at=ending.created_at, id=ending.id)))
