"""Files."""

from pydantic import Field

from app.api.schemas.body import Body, Number


class File(Body):
    id: str
    name: str
    size_bytes: int
    width: int
    height: int
    frame_rate: Number
    duration_seconds: Number
    created_at: str


class FileBody(Body):
    file: File


class FilesBody(Body):
    """A page, the newest first."""

    files: list[File]
    next_cursor: str | None = Field(None, description="For the next page; left out on the last.")
