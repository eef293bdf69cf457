"""Rows that tests make up."""

from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

from sqlalchemy.orm import Session

from app.files.tables import File
from app.platform.media.limits import MediaLimits
from app.platform.secrets import new_id
from app.platform.settings import Settings
from app.renders.options import RenderOptions
from app.renders.service import create_render
from app.renders.tables import Render
from app.usage.allowances import Allowance, Requester


def a_file(user_id: str) -> File:
    """An uploaded clip of two seconds, whose bytes lie nowhere."""
    return File(
        id=new_id(),
        user_id=user_id,
        name="clip.mp4",
        content_type="video/mp4",
        size_bytes=1,
        sha256="0" * 64,
        storage_key="files/clip/input",
        width=64,
        height=48,
        frame_rate=Fraction(25),
        duration_seconds=Fraction(2),
        frames=50,
        created_at=datetime.now(UTC),
    )


def a_render(
    session: Session,
    file: File,
    *,
    allowance: Allowance | None = None,
    key_id: str | None = None,
    request_id: str | None = None,
    **options: Any,
) -> Render:
    """A queued render of the file, as its user asks for it; without `allowance` within the usual limits alone."""
    allowance = allowance or Allowance(media=MediaLimits.from_settings(Settings()))
    requester = Requester(id=file.user_id, key_id=key_id, allowance=allowance)
    return create_render(
        session, file=file, options=RenderOptions(**options), requester=requester, request_id=request_id
    )
