"""The storage contract. One set of contract tests covers local files and S3-compatible servers."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from app.platform.file_names import ascii_name


@dataclass(frozen=True, kw_only=True)
class ListedObject:
    """A stored object as a listing returns it. S3 listings contain no content types."""

    key: str
    size_bytes: int
    modified_at: datetime


@dataclass(frozen=True, kw_only=True)
class StoredObject(ListedObject):
    """A stored object's metadata."""

    content_type: str


@dataclass(frozen=True, kw_only=True)
class StoredPart:
    """A received part of an upload in parts. `number` counts from 1; `etag` identifies its bytes."""

    number: int
    etag: str
    size_bytes: int


class Storage(Protocol):
    """Keys are relative slash-separated paths of `[A-Za-z0-9._-]` parts, none of them starting with a dot.

    Every method raises StorageError when the operation fails, and ValueError for a malformed key.
    """

    @property
    def links_files(self) -> bool:
        """Whether `fetch` makes links where it can, so that a part of a file costs no less than the whole."""

    def put_file(self, key: str, path: Path, *, content_type: str) -> None:
        """Store the file at `path` under `key`, atomically and durably; an existing object is replaced.

        The file at `path` is consumed: it may have been moved on return.
        """

    def fetch(self, key: str, path: Path, *, in_parts: bool = True) -> None:
        """Copy or link the object to the new file `path`, which the caller must only read. Raises KeyNotFound.

        `in_parts`: by several requests, of which one that breaks off is repeated; otherwise by a single request, at a
        third of the cost of a small object.
        """

    def read(self, key: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Stream the object's bytes in chunks of at most 1 MiB. Raises KeyNotFound at the call itself."""

    def stat(self, key: str) -> StoredObject:
        """Raises KeyNotFound."""

    def list(self, prefix: str) -> Iterator[ListedObject]:
        """Every object whose key starts with `prefix`, in no particular order."""

    def delete(self, key: str) -> None:
        """Remove the object if it exists."""

    def delete_all(self, keys: Collection[str]) -> None:
        """Remove those of the objects that exist, by as few requests as the storage allows.

        After an error any of them may be gone.
        """

    def signed_url(self, key: str, *, base_url: str, file_name: str, lifetime_seconds: int) -> str:
        """A URL that reads the object for `lifetime_seconds` from now, with `file_name` as the download name.

        `base_url` is the API's public address (no trailing slash); a storage that serves its own URLs ignores it.
        """

    def open_parts(self, key: str, *, content_type: str) -> str:
        """Begin an upload in parts of the object `key`. Returns its multipart id."""

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
        """A URL that accepts one part by PUT, any number of times; the last PUT counts.

        It accepts exactly `size_bytes` bytes. The response's ETag header is the etag that `complete_parts` expects.
        """

    def list_parts(self, key: str, multipart_id: str) -> Sequence[StoredPart]:
        """The received parts. Raises KeyNotFound when the upload was completed or aborted.

        For a part that was sent again some servers list the earlier versions too, in no particular order.
        """

    def complete_parts(self, key: str, multipart_id: str, parts: Sequence[StoredPart]) -> None:
        """Make the object of these parts, in this order, atomically. The upload ends.

        Raises StorageError also when the upload was already completed or aborted; `stat` shows which.
        """

    def abort_parts(self, key: str, multipart_id: str) -> None:
        """End the upload, if it exists, and free its parts."""

    def check(self, *, beside: str | None = None) -> None:
        """Raises StorageError with a sentence for the operator if the storage cannot be written, read or reached.

        With `beside` it checks the folder of that key: rights may differ between folders.
        """


def delete_under(storage: Storage, prefix: str) -> None:
    """Remove every object whose key starts with `prefix`. Raises StorageError; then any of them may be gone."""
    storage.delete_all([stored.key for stored in storage.list(prefix)])


def attachment(name: str) -> str:
    """A Content-Disposition with `name` as the download name: in ASCII, and exact as RFC 6266 defines."""
    plain = ascii_name(name)
    header = f'attachment; filename="{plain}"'
    if plain != name:
        header += f"; filename*=UTF-8''{quote(name, safe='')}"
    return header
