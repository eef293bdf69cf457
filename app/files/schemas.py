"""Files."""

from collections.abc import Sequence
from typing import Self

from pydantic import BaseModel, Field
from pydantic.json_schema import SkipJsonSchema

from app.files import tables
from app.files.accept_video import FILE_URL_FIELD, source_faults
from app.http.body import Body, Number, Timestamp, Url, with_example
from app.http.forms import FormUpload, parse_form
from app.http.multipart import FILE_FIELD, ReceivedForm
from app.http.resources import Resources
from app.platform.errors import InvalidRequest
from app.platform.outbound import MOST_URL_CHARACTERS
from app.platform.settings import Settings

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


class NewVideo(BaseModel):
    """A video that is sent, or that the server fetches."""

    file: FormUpload | SkipJsonSchema[None] = None
    file_url: str | SkipJsonSchema[None] = Field(
        None,
        description="An http or https URL of a video for the server to fetch, if its operator allows it.",
        json_schema_extra={"format": "uri", "maxLength": MOST_URL_CHARACTERS},
    )


class UploadForm(BaseModel):
    """The form that the description of the API shows: generators of clients take the first type of a body alone, so
    that `file_url` is told in words."""

    file: FormUpload


class FileForm(NewVideo):
    @classmethod
    def read(cls, form: ReceivedForm, settings: Settings) -> Self:
        """Raises InvalidRequest with one message per fault."""
        if form.upload is None and FILE_URL_FIELD not in form.fields:
            missing = f"`{FILE_FIELD}` is required, as a part of a multipart/form-data body."
            raise InvalidRequest(*(form.faults.values() or [missing]), *form.hints)
        faults = source_faults(form, (FILE_FIELD, FILE_URL_FIELD), settings)
        return parse_form(cls, form, faults=faults)


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


class Contents(Body):
    """What is in a file, in ffmpeg's names. Nothing is known of files of earlier versions."""

    codec: str | None = None
    pixel_format: str | None = Field(None, description="`yuv420p10le` has 10 bits.")
    transfer: str | None = Field(
        None,
        description="The curve of its brightness, if the file says: `smpte2084` and `arib-std-b67` are HDR.",
    )
    sound: list[str] | None = Field(
        None, description="The codecs of its sound tracks; empty if it is silent."
    )
    video_begins_at: Number | None = Field(
        None,
        description="When its first frame is shown, in seconds on the file's clock: sound may begin earlier.",
    )
    file_url: Url | None = Field(None, alias="fileURL", description="Signed URL of the file itself.")

    @classmethod
    def of(cls, file: tables.File, *, resources: Resources, base_url: str) -> Self:
        return cls(
            codec=file.codec,
            pixel_format=file.pix_fmt,
            transfer=file.transfer,
            sound=file.sound,
            video_begins_at=file.video_begins_at,
            file_url=resources.signed_url(file.storage_key, base_url=base_url, file_name=file.name),
        )


class ContentsBody(Body):
    model_config = with_example(
        {
            "contents": {
                "codec": "h264",
                "pixelFormat": "yuv420p",
                "transfer": "bt709",
                "sound": ["aac"],
                "videoBeginsAt": 0,
                "fileURL": "https://regen.example.com/storage/files/QkjXasuzs2TKugHH/input?expires=...",
            }
        }
    )

    contents: Contents
