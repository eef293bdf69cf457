"""Files."""

from collections.abc import Sequence
from typing import Self

from pydantic import BaseModel, Field

from app.files import tables
from app.http.body import Body, Number, Timestamp, with_example
from app.http.forms import FormUpload

_EXAMPLE = {
    "id": "QkjXasuzs2TKugHH",
    "name": "clip.mp4",
    "sizeBytes": 151216,
    "width": 240,
    "height": 136,
    "frameRate": 25,
    "durationSeconds": 2,
    "createdAt": "2026-11-22T07:33:37.912Z",
}


class FileForm(BaseModel):
    file: FormUpload


class VideoFile(Body):
    id: str
    name: str = Field(description="As sent, without any folders.")
    size_bytes: int
    width: int = Field(description="In pixels, as displayed.")
    height: int
    frame_rate: Number = Field(description="Frames per second.")
    duration_seconds: Number
    created_at: Timestamp
    warnings: list[str] | None = Field(
        None, description="About the request that uploaded the file, if there are any."
    )

    @classmethod
    def of(cls, file: tables.File, *, warnings: Sequence[str] = ()) -> Self:
        return cls(
            id=file.id,
            name=file.name,
            size_bytes=file.size_bytes,
            width=file.video.width,
            height=file.video.height,
            frame_rate=file.video.frame_rate,
            duration_seconds=file.video.duration_seconds,
            created_at=file.created_at,
            warnings=[*warnings] or None,
        )


class FileBody(Body):
    model_config = with_example({"file": _EXAMPLE})

    file: VideoFile


class FilesBody(Body):
    """A page, the newest first."""

    model_config = with_example({"files": [_EXAMPLE], "nextCursor": "QkjXasuzs2TKugHH"})

    files: list[VideoFile]
    next_cursor: str | None = Field(None, description="For the next page; left out on the last.")
