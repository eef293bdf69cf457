"""Uploads in parts."""

from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

from app.http.body import Body, RequestBody, Timestamp, Url, with_example
from app.platform.storage import contract
from app.uploads import service, tables
from app.uploads.service import LEAST_PART_BYTES, MOST_PART_BYTES, MOST_PARTS, UploadStatus

# As the description says by the format int64.
MOST_INT64 = 2**63 - 1
PartNumber = Annotated[int, Field(ge=1, le=MOST_PARTS, strict=True)]

_ETAG = "3b5d5c3712955042212316173ccf37be"
_URL = "http://127.0.0.1:8000/storage-parts/0f8fad5bd9cb469fa165708867450e2c/1?size=16777216&expires=...&signature=..."
_PART = {"number": 1, "url": _URL, "sizeBytes": 16777216}
_UPLOAD = {
    "id": "mV7cPq02bYtKx9Ws",
    "status": "open",
    "name": "film.mov",
    "sizeBytes": 50000000,
    "partSizeBytes": 16777216,
    "partCount": 3,
    "createdAt": "2026-11-22T07:33:37.912Z",
    "expiresAt": "2026-11-23T07:33:37.912Z",
}


class UploadRequest(RequestBody):
    """An upload to be opened."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "film.mov", "size_bytes": 50_000_000}]}
    )

    name: str = Field(min_length=1, max_length=4096, description="The file's name.")
    size_bytes: int = Field(ge=1, le=MOST_INT64, strict=True, description="The whole file's size.")
    part_size_bytes: int | None = Field(
        None,
        ge=LEAST_PART_BYTES,
        le=MOST_PART_BYTES,
        strict=True,
        description="Size of each part but the last. Default: 16 MiB, or more if there would be more than "
        f"{MOST_PARTS:,} parts.",
    )


# No `RequestBody`, whose reading is Python: of 10,000 parts it takes ten times as long, while other requests wait.
class SentPart(BaseModel):
    number: PartNumber
    etag: str = Field(min_length=1, max_length=256, description="The ETag header of the answer to the part.")


class CompletionRequest(RequestBody):
    """All parts of an upload, with the ETags of their answers."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"parts": [{"number": 1, "etag": _ETAG}]}]})

    parts: list[SentPart] = Field(min_length=1, max_length=MOST_PARTS)


class PartToSend(Body):
    number: int = Field(description="From 1 on.")
    url: Url = Field(description="Takes the part's bytes by PUT, without a key, as often as needed.")
    size_bytes: int = Field(description="The part must have exactly so many bytes.")


class ReceivedPart(Body):
    number: int
    etag: str
    size_bytes: int


class Upload(Body):
    id: str
    status: UploadStatus = Field(
        description="`open`, `completed`, or `ended`: aborted, expired, or completed with something that is not a "
        "video."
    )
    name: str
    size_bytes: int
    part_size_bytes: int = Field(description="Of every part but the last.")
    part_count: int
    created_at: Timestamp
    expires_at: Timestamp
    file_id: str | None = Field(None, description="When completed.")
    parts: list[PartToSend] | None = Field(
        None, description="In the answer that opens it: the first thousand parts to send."
    )
    received_parts: list[ReceivedPart] | None = Field(
        None, description="The received parts of an open upload."
    )
    warnings: list[str] | None = Field(
        None, description="In the answer that opens it: about the request, if there are any."
    )

    @classmethod
    def of(
        cls,
        upload: tables.Upload,
        *,
        parts: Sequence[service.PartToSend] | None = None,
        received_parts: Sequence[contract.StoredPart] | None = None,
        warnings: Sequence[str] = (),
    ) -> Self:
        """`parts`, `received_parts` and `warnings` are shown if they are given."""
        status = service.status_of(upload)
        return cls(
            id=upload.id,
            status=status,
            name=upload.name,
            size_bytes=upload.size_bytes,
            part_size_bytes=upload.part_size_bytes,
            part_count=service.part_count(upload),
            created_at=upload.created_at,
            expires_at=upload.expires_at,
            file_id=upload.file_id if status is UploadStatus.COMPLETED else None,
            parts=None if parts is None else [*map(PartToSend.model_validate, parts)],
            received_parts=None
            if received_parts is None
            else [*map(ReceivedPart.model_validate, received_parts)],
            warnings=[*warnings] or None,
        )


class UploadBody(Body):
    model_config = with_example({"upload": {**_UPLOAD, "parts": [_PART]}})

    upload: Upload


class UploadsBody(Body):
    """A page, the newest first."""

    model_config = with_example({"uploads": [_UPLOAD]})

    uploads: list[Upload]
    next_cursor: str | None = Field(None, description="For the next page; left out on the last.")


class PartsBody(Body):
    """Parts to send."""

    model_config = with_example({"parts": [_PART], "nextAfter": 1})

    parts: list[PartToSend]
    next_after: int | None = Field(
        None, description="`after` for the parts that follow; left out with the last."
    )
