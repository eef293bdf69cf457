"""What playlists read of renders and their segments."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Integer, String, bindparam, func, select

from app.platform.database import ColumnReader, fetch_rows
from app.platform.secrets import is_id
from app.renders.statuses import RenderStatus, SegmentStatus
from app.renders.tables import Render, Segment

_RENDER = bindparam("render", type_=String)
_POSITION = bindparam("position", type_=Integer)


@dataclass(frozen=True, slots=True)
class WatchedRender:
    """The columns of a render that its playlist needs, as `tables.Render` names them."""

    id: str
    user_id: str
    status: RenderStatus
    unplanned_frames: int | None
    segment_times: dict[str, Any] | None
    sound_key: str | None
    output_key: str | None
    files_removed_at: datetime | None
    cleaned_at: datetime | None


_COLUMNS = tuple(Render.__table__.c[name] for name in WatchedRender.__slots__)
_FIND = select(*_COLUMNS).where(Render.id == _RENDER)
_FIRST_UNFINISHED = select(func.min(Segment.position)).where(
    Segment.render_id == _RENDER, Segment.status != SegmentStatus.DONE
)
_SEGMENT_KEY = select(Segment.storage_key).where(
    Segment.render_id == _RENDER, Segment.position == _POSITION, Segment.status == SegmentStatus.DONE
)


def find_watched(reader: ColumnReader, *, render_id: str) -> WatchedRender | None:
    """The render of whatever user."""
    if not is_id(render_id):
        return None
    rows = fetch_rows(reader, _FIND, {_RENDER.key: render_id})
    return WatchedRender(*rows[0]) if rows else None


def first_unfinished(reader: ColumnReader, *, render_id: str) -> int | None:
    """The position of the first segment that is not done; None if all are."""
    rows = fetch_rows(reader, _FIRST_UNFINISHED, {_RENDER.key: render_id})
    position: int | None = rows[0][0]
    return position


def segment_key(reader: ColumnReader, *, render_id: str, position: int) -> str | None:
    """Where the segment is stored; None if it is not done."""
    rows = fetch_rows(reader, _SEGMENT_KEY, {_RENDER.key: render_id, _POSITION.key: position})
    key: str | None = rows[0][0] if rows else None
    return key
