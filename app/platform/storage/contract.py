"""What a storage must do. Local files and S3-compatible servers stand behind the same contract tests."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class ListedObject:
    """What a listing tells of a stored object. S3's listings know no content types."""

    key: str
    size_bytes: int
    modified_at: datetime


@dataclass(frozen=True, kw_only=True)
class StoredObject(ListedObject):
    """What is known of a stored object without reading it."""

    content_type: str


@dataclass(frozen=True, kw_only=True)
class ReceivedPart:
    """A part of an upload in parts that has come in. `number` counts from 1; `etag` says what its bytes are."""

    number: int
    etag: str
    size_bytes: int


class Storage(Protocol):
    """Keys are relative slash-separated paths of `[A-Za-z0-9._-]` parts, none of them starting with a dot.

    Every method raises StorageError when the storage cannot do as asked, and ValueError for a malformed key.
    """

    def put_file(self, key: str, path: Path, *, content_type: str) -> None:
        """Store the file at `path` under `key`: whole or not at all, durable on return, replacing what was there.

        The file at `path` is consumed: it may have been moved away on return.
        """

    def fetch(self, key: str, path: Path) -> None:
        """Bring the object to the new file `path`, which must be read only. Raises KeyNotFound."""

    def read(self, key: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Stream the object's bytes in chunks of at most 1 MiB. Raises KeyNotFound at the call, not later."""

    def stat(self, key: str) -> StoredObject:
        """Raises KeyNotFound."""

    def list(self, prefix: str) -> Iterator[ListedObject]:
        """Every object whose key starts with `prefix`, in no promised order."""

    def delete(self, key: str) -> None:
        """Remove the object; nothing happens when there is none."""

    def signed_url(self, key: str, *, base_url: str, file_name: str, lifetime_seconds: int) -> str:
        """A URL that reads the object for `lifetime_seconds` from now, offering `file_name` as download name.

        `base_url` is where clients reach the API (no trailing slash); a storage that serves its own URLs ignores it.
        """

    def open_parts(self, key: str, *, content_type: str) -> str:
        """Begin an upload in parts of the object `key`. Returns the storage's own name of it."""

    def signed_part_url(
        self,
        key: str,
        multipart_id: str,
        *,
        number: int,
        size_bytes: int,
        base_url: str,
        lifetime_seconds: int,
    ) -> str:
        """A URL that takes the bytes of one part by PUT, as often as wanted; the last ones count.

        It takes `size_bytes` and no other number of them. The answer's ETag header is what `complete_parts` wants.
        """

    def list_parts(self, key: str, multipart_id: str) -> Sequence[ReceivedPart]:
        """The parts that have come in. Raises KeyNotFound when the upload was completed or aborted.

        Of a part that was sent again some servers also list what came before, in no order.
        """

    def complete_parts(self, key: str, multipart_id: str, parts: Sequence[ReceivedPart]) -> None:
        """Make the object of these parts, in their order: whole or not at all. The upload is over then.

        Raises StorageError also when it was completed or aborted before; of the first, `stat` tells.
        """

    def abort_parts(self, key: str, multipart_id: str) -> None:
        """End the upload and free its parts; nothing happens when there is none."""

    def check(self, *, beside: str | None = None) -> None:
        """Raise StorageError with a sentence that helps when the storage cannot be written, read or reached.

        With `beside` it looks where that key lies: rights may differ from folder to folder.
        """
