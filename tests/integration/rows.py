"""Rows that tests make up."""

from datetime import UTC, datetime
from fractions import Fraction

from app.files.tables import File
from app.platform.secrets import new_id


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
