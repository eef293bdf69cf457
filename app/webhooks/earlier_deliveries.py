"""Reads deliveries that an earlier version wrote, with the render's columns in place of the event's data."""

from datetime import datetime
from fractions import Fraction
from pathlib import PurePath
from typing import Any

from app.platform.file_names import output_name
from app.platform.json_values import number, timestamp
from app.renders.tables import Render
from models.catalog import SCALE


def render_of(facts: dict[str, Any]) -> dict[str, Any]:
    """The render as the API showed it at the event, without links."""
    written = facts["render"]
    completed, failed = written["status"] == "completed", written["status"] == "failed"
    fields = {
        "id": written["id"],
        "userId": written["user_id"],
        "status": written["status"],
        "createdAt": _timestamp(written["created_at"]),
        "queuePosition": facts.get("queue_position"),
        "completedAt": _timestamp(written["completed_at"]) if completed else None,
        "engine": written["engine"],
        "targetFps": _number(written["target_fps"]),
        "retime": None if written["retime"] == "nearest" else written["retime"],
        "fileId": written["file_id"],
        "cost": written["cost"],
        "progress": 1.0 if completed else float(facts.get("progress", 0.0)),
        "error": written["error"] if failed else None,
        "warnings": written["warnings"] or None,
        "priority": written["priority"] or None,
        "webhookUrl": written["webhook_url"],
        "retryOf": written["retry_of"],
        "quality": written["quality"],
        "input": _video(written, "input"),
        "output": _video(written, "output"),
    }
    return {name: value for name, value in fields.items() if value is not None}


def links_of(facts: dict[str, Any], render: Render) -> dict[str, dict[str, str]]:
    """The links of the event, which the earlier version read from the row when it sent them."""
    keys: dict[str, str | None] = {"inputFileURL": render.file.storage_key}
    if facts["render"]["status"] == "completed":
        keys |= {"outputFileURL": render.output_key, "thumbnailURL": render.thumbnail_key}
    name = render.file.name
    return {
        field: {
            "storage_key": key,
            "file_name": name
            if field == "inputFileURL"
            else output_name(name, scale=SCALE, suffix=PurePath(key).suffix),
        }
        for field, key in keys.items()
        if key is not None
    }


def _video(written: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {
        "width": written[f"{prefix}_width"],
        "height": written[f"{prefix}_height"],
        "frameRate": _number(written[f"{prefix}_frame_rate"]),
        "durationSeconds": _number(written[f"{prefix}_duration_seconds"]),
        "frames": written[f"{prefix}_frames"],
    }


def _timestamp(text: str | None) -> str | None:
    return None if text is None else timestamp(datetime.fromisoformat(text))


def _number(text: str | None) -> int | float | None:
    return None if text is None else number(Fraction(text))
