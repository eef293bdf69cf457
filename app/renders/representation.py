"""The user's view of a render as plain values, for answers and webhook events."""

import re
from dataclasses import dataclass, fields
from datetime import datetime
from fractions import Fraction
from pathlib import PurePath
from typing import Any

from app.platform.file_names import output_name
from app.platform.media.containers import ISO_SUFFIXES
from app.platform.media.work_options import WorkOptions
from app.renders.queries import ShownRender
from app.renders.statuses import DestinationStatus, RenderStatus
from app.renders.stored_options import COLUMN_OF
from models.catalog import SCALE

NOTHING_TO_SEND = "There is no result to send: the render failed."
_OPTION_OF = {column: option for option, column in COLUMN_OF.items()}
# The options that decide what the output is: their columns and defaults, by name.
_SHOWN_OPTIONS = {
    _OPTION_OF.get(field.name, field.name): (field.name, field.default)
    for field in fields(WorkOptions)
    if field.name != "measures_quality"
}


@dataclass(frozen=True, kw_only=True)
class Link:
    """A stored file that the user may download, and the download's name."""

    storage_key: str
    file_name: str


@dataclass(frozen=True, kw_only=True)
class ShownDestination:
    """Where the output is sent, without what permits that, and how far that is."""

    url: str
    status: DestinationStatus
    attempts: int = 0
    message: str | None = None
    delivered_at: datetime | None = None


def shown_destination(render: ShownRender) -> ShownDestination | None:
    """None for a render without a destination."""
    if render.destination is None:
        return None
    url = re.split("[?#]", render.destination, maxsplit=1)[0]
    if render.status is RenderStatus.FAILED:
        return ShownDestination(url=url, status=DestinationStatus.FAILED, message=NOTHING_TO_SEND)
    state = render.destination_state or {"status": DestinationStatus.PENDING}
    delivered_at = state.get("delivered_at")
    return ShownDestination(
        url=url,
        status=DestinationStatus(state["status"]),
        attempts=state.get("attempts", 0),
        message=state.get("message"),
        delivered_at=delivered_at and datetime.fromisoformat(delivered_at),
    )


def shown_fields(render: ShownRender, *, progress: float, queue_position: int | None) -> dict[str, Any]:
    """The API's fields derived from the row, by their names in `schemas.Render`; None for one that is left out.

    `progress` is from 0 to 1, `queue_position` from 1 while the render is queued.
    """
    return {
        "id": render.id,
        "user_id": render.user_id,
        "status": render.status.value,
        "created_at": render.created_at,
        "queue_position": queue_position,
        "completed_at": render.completed_at if render.status is RenderStatus.COMPLETED else None,
        **shown_options(render, target_fps_sent=render.target_fps_sent),
        "metadata": render.user_metadata,
        "cancel_after": render.cancel_after,
        "file_id": render.file_id,
        "file_name": render.file.name,
        "cost": render.cost,
        "progress": progress,
        "error": render.error if render.status is RenderStatus.FAILED else None,
        "request_id": render.request_id if render.status is RenderStatus.FAILED else None,
        "warnings": render.warnings or None,
        "priority": render.priority or None,
        "webhook_url": render.webhook_url,
        "destination": shown_destination(render),
        "retry_of": render.retry_of,
        "quality": render.quality,
        "encoded_quality": render.encoded_quality,
        "input": render.input,
        "output": render.output,
        "output_size_bytes": render.output_bytes if render.status is RenderStatus.COMPLETED else None,
    }


def shown_options(render: ShownRender | WorkOptions, *, target_fps_sent: float | None) -> dict[str, Any]:
    """The fields of `schemas.OptionFacts`: None for an option that has its default.

    `target_fps_sent` is the rate's number as sent, None in rows of early versions.
    """
    shown = {
        option: None if (value := getattr(render, column)) == default else value
        for option, (column, default) in _SHOWN_OPTIONS.items()
    }
    if (exact := render.target_fps) is not None:
        shown["target_fps"] = exact if target_fps_sent is None else Fraction(target_fps_sent)
        shown["target_fps_exact"] = f"{exact.numerator}/{exact.denominator}"
    return shown


def links(render: ShownRender) -> dict[str, Link]:
    """The files that the user may download now, by the JSON name of the URL's field."""
    file, shown = render.file, {}
    if file.removed_at is None:
        shown["inputFileURL"] = Link(storage_key=file.storage_key, file_name=file.name)
    if render.status is RenderStatus.COMPLETED and render.files_removed_at is None:
        for name, key in (("outputFileURL", render.output_key), ("thumbnailURL", render.thumbnail_key)):
            if key is not None:
                file_name = output_name(file.name, scale=_scale_of(render), suffix=PurePath(key).suffix)
                shown[name] = Link(storage_key=key, file_name=file_name)
    return shown


def has_playlist(render: ShownRender, *, has_start: bool) -> bool:
    """Whether there is something to watch. `has_start`: of an unfinished render, whether its first segment is done."""
    if not render.is_watchable or render.files_removed_at is not None:
        return False
    if render.status is RenderStatus.COMPLETED:
        return PurePath(render.output_key or "").suffix in ISO_SUFFIXES
    return render.status is RenderStatus.PROCESSING and has_start


def _scale_of(render: ShownRender) -> int | str:
    """The output's size as its file name says it."""
    if render.max_width is not None or render.max_height is not None:
        return f"{render.output.width}x{render.output.height}"
    return render.scale or SCALE
