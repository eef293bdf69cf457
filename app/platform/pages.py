"""Lists in pages, the newest first: where a page ends is a place among the rows, so that new ones shift nothing."""

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
from app.platform.secrets import is_id
from app.platform.tables import ListedTable

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


Row = TypeVar("Row", bound=ListedTable)


@dataclass(frozen=True, kw_only=True)
class Page(Generic[Row]):
    """`cursor` is where the next page begins; None after the last."""

    rows: Sequence[Row]
    cursor: str | None


@dataclass(frozen=True, kw_only=True)
class Place:
    """Of a row among those of its list."""

    created_at: datetime
    id: str

    def __str__(self) -> str:
        """As clients carry it: opaque to them, and safe in a URL."""
        microseconds = (self.created_at - EPOCH) // timedelta(microseconds=1)
        return (
            base64.urlsafe_b64encode(struct.pack(">q", microseconds) + self.id.encode()).decode().rstrip("=")
        )

    @classmethod
    def parse(cls, text: str) -> "Place":
        """Raises InvalidRequest for what is no place of ours."""
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            (microseconds,) = struct.unpack(">q", raw[:8])
            place = cls(created_at=EPOCH + timedelta(microseconds=microseconds), id=raw[8:].decode("ascii"))
        except (binascii.Error, struct.error, ValueError, OverflowError) as error:
            raise InvalidRequest("`cursor` is not one that a page ended with.") from error
        if not is_id(place.id):
            raise InvalidRequest("`cursor` is not one that a page ended with.")
        return place


def read_page(
    session: Session, query: Select[Row], table: type[Row], *, limit: int, cursor: str | None
) -> Page[Row]:
    """Up to `limit` rows of the query from the cursor on. Raises InvalidRequest for a cursor that is none."""
    query = query.order_by(table.created_at.desc(), table.id.desc()).limit(limit + 1)
    if cursor is not None:
        last = Place.parse(cursor)
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
    return Page(rows=rows[:limit], cursor=str(Place(created_at=ending.created_at, id=ending.id)))
