"""Storage in a directory of this machine.

An object is a plain file at its key below the root. Its content type is in a second file beside it, whose name starts
with a dot, as no key does. The rename of the object is the last step of storing it, and its removal the first step of
deleting it: a crash leaves whole objects, and at worst a content type without one, which no method shows.
"""

import errno
import hashlib
import hmac
import json
import os
import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, urlencode

from app.platform.errors import Forbidden, NotFound, StorageError
from app.platform.storage.contract import ListedObject, StoredObject, StoredPart
from app.platform.storage.keys import check_key, check_prefix
from app.platform.storage.local_files import (
    PARTS_URL_PREFIX,
    LocalParts,
    PartReceiver,
    SignedPart,
    copy_file,
    local_errors,
    make_directories,
    not_found,
    signed_part_message,
    sync_directory,
    sync_file,
)

CHUNK_BYTES = 1024**2
DEFAULT_CONTENT_TYPE = "application/octet-stream"
URL_PREFIX = "/storage/"

# Incoming files. A crash left those that are older than STALE_SECONDS.
INCOMING = ".incoming"
STALE_SECONDS = 24 * 3600

# Errors after which `fetch` copies: another file system, no permission, too many links, links not supported.
_NO_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP})
# A concurrent delete may remove a directory between its creation and the rename into it.
_RENAME_ATTEMPTS = 5


class LocalStorage:
    """See Storage. A missing `root` is created, unless `read_only`; `url_key` signs URLs; `clock` returns seconds since
    the epoch."""

    def __init__(
        self,
        *,
        root: Path,
        url_key: bytes,
        clock: Callable[[], float] = time.time,
        read_only: bool = False,
    ) -> None:
        self.root = root
        self._incoming = root / INCOMING
        self._parts = LocalParts(root=root, incoming=self._incoming)
        self._url_key = url_key
        self._clock = clock
        if read_only:
            return
        with local_errors("The storage directory cannot be used."):
            make_directories(self._incoming)
            self._remove_stale()
            self._parts.remove_stale()

    @property
    def links_files(self) -> bool:
        return True

    def put_file(self, key: str, path: Path, *, content_type: str) -> None:
        destination = self._path(key)
        with local_errors("The file could not be stored."):
            sync_file(path)
            self._store_content_type(destination, content_type)
            try:
                self._rename(path, destination)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                self._copy(path, destination)
                path.unlink()
            sync_directory(destination.parent)

    def fetch(self, key: str, path: Path, *, in_parts: bool = True) -> None:
        source = self._path(key)
        with local_errors("The stored file could not be fetched.", source=source):
            if not source.is_file():
                raise not_found(source)
            try:
                os.link(source, path)
            except OSError as error:
                if error.errno not in _NO_LINK:
                    raise
                part = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
                try:
                    copy_file(source, part)
                    part.replace(path)
                finally:
                    part.unlink(missing_ok=True)

    def read(self, key: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        source = self._path(key)
        with local_errors("The stored file could not be read.", source=source):
            if not source.is_file():
                raise not_found(source)
            file = source.open("rb", buffering=0)
            try:
                file.seek(offset)
            except BaseException:
                file.close()
                raise
        return _chunks(file, length)

    def locate(self, key: str) -> tuple[Path, os.stat_result, str]:
        """The object's file, its stat result, and its content type. Raises KeyNotFound."""
        content_type = self.stat(key).content_type
        path = self._path(key)
        with local_errors("The stored file could not be read.", source=path):
            return path, path.stat(), content_type

    def stat(self, key: str) -> StoredObject:
        path = self._path(key)
        with local_errors("The stored file could not be read.", source=path):
            found = self._stat(key, path)
            if found is None:
                raise not_found(path)
            return found

    def list(self, prefix: str) -> Iterator[ListedObject]:
        check_prefix(prefix)
        *parents, start = prefix.split("/")
        top = self.root.joinpath(*parents)
        return self._walk(top, start)

    def delete(self, key: str) -> None:
        path = self._path(key)
        with local_errors("The stored file could not be removed."):
            if path.is_dir():
                return
            try:
                path.unlink(missing_ok=True)
                _type_path(path).unlink(missing_ok=True)
            except NotADirectoryError:
                return
            self._remove_empty(path.parent)

    def delete_all(self, keys: Collection[str]) -> None:
        for key in keys:
            self.delete(key)

    def signed_url(self, key: str, *, base_url: str, file_name: str, lifetime_seconds: int) -> str:
        check_key(key)
        expires = str(int(self._clock()) + lifetime_seconds)
        query = {
            "expires": expires,
            "name": file_name,
            "signature": self._signature([key, expires, file_name]),
        }
        return f"{base_url}{URL_PREFIX}{key}?{urlencode(query, quote_via=quote)}"

    def open_signed(self, key: str, query: Mapping[str, str]) -> str:
        """The download name of a signed URL.

        Raises NotFound for a missing or wrong signature, Forbidden for an expired link.
        """
        expires, name = query.get("expires", ""), query.get("name", "")
        self._check_signature([key, expires, name], query)
        return name

    def open_parts(self, key: str, *, content_type: str) -> str:
        check_key(key)
        with local_errors("The upload could not be opened."):
            return self._parts.open(key, content_type=content_type)

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
        check_key(key)
        query = {"size": str(size_bytes), "expires": str(int(self._clock()) + lifetime_seconds)}
        message = signed_part_message(query, multipart_id=multipart_id, number=str(number))
        query["signature"] = self._signature(message)
        return f"{base_url}{PARTS_URL_PREFIX}{multipart_id}/{number}?{urlencode(query)}"

    def open_signed_part(self, multipart_id: str, number: str, query: Mapping[str, str]) -> SignedPart:
        """The part that a signed URL accepts. Raises as `open_signed` does."""
        self._check_signature(signed_part_message(query, multipart_id=multipart_id, number=number), query)
        return SignedPart(multipart_id=multipart_id, number=int(number), size_bytes=int(query["size"]))

    def receive_part(self, part: SignedPart) -> PartReceiver:
        """A receiver of the part's bytes. Raises NotFound when the upload has ended."""
        with local_errors("The part could not be stored."):
            return self._parts.receive(part)

    def list_parts(self, key: str, multipart_id: str) -> Sequence[StoredPart]:
        with local_errors("The upload's parts could not be listed."):
            self._parts.content_type(key, multipart_id)
            return self._parts.list(multipart_id)

    def complete_parts(self, key: str, multipart_id: str, parts: Sequence[StoredPart]) -> None:
        with local_errors("The upload's parts could not be assembled."):
            content_type = self._parts.content_type(key, multipart_id)
            joined = self._parts.join(multipart_id, parts)
            try:
                self.put_file(key, joined, content_type=content_type)
            finally:
                joined.unlink(missing_ok=True)
            self._parts.remove(multipart_id)

    def abort_parts(self, key: str, multipart_id: str) -> None:
        check_key(key)
        with local_errors("The upload's parts could not be removed."):
            self._parts.remove(multipart_id)

    def check(self, *, beside: str | None = None) -> None:
        del beside  # the whole directory has one owner
        probe = self._incoming / f"check-{secrets.token_hex(8)}"
        content = secrets.token_bytes(16)
        with local_errors("The storage directory cannot be written."):
            try:
                probe.write_bytes(content)
                if probe.read_bytes() != content:
                    raise StorageError("The storage directory does not return what was written to it.")
            finally:
                probe.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        check_key(key)
        return self.root.joinpath(*key.split("/"))

    def _copy(self, path: Path, destination: Path) -> None:
        copy = self._incoming / secrets.token_hex(16)
        try:
            copy_file(path, copy)
            self._rename(copy, destination)
        finally:
            copy.unlink(missing_ok=True)

    def _store_content_type(self, destination: Path, content_type: str) -> None:
        path = _type_path(destination)
        with suppress(FileNotFoundError, NotADirectoryError):
            if path.read_text("utf-8") == content_type:
                return
        fresh = self._incoming / secrets.token_hex(16)
        try:
            fresh.write_text(content_type, "utf-8")
            sync_file(fresh)
            self._rename(fresh, path)
        finally:
            fresh.unlink(missing_ok=True)

    def _rename(self, source: Path, destination: Path) -> None:
        for attempt in range(1, _RENAME_ATTEMPTS + 1):
            make_directories(destination.parent)
            try:
                source.replace(destination)
            except FileNotFoundError:
                if attempt == _RENAME_ATTEMPTS or not source.exists():
                    raise
            else:
                return

    def _stat(self, key: str, path: Path) -> StoredObject | None:
        try:
            facts = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if path.is_dir():
            return None
        try:
            content_type = _type_path(path).read_text("utf-8")
        except FileNotFoundError:
            content_type = DEFAULT_CONTENT_TYPE
        return StoredObject(
            key=key,
            size_bytes=facts.st_size,
            content_type=content_type,
            modified_at=datetime.fromtimestamp(facts.st_mtime_ns / 1e9, UTC),
        )

    def _walk(self, top: Path, start: str) -> Iterator[ListedObject]:
        for directory, directories, names in os.walk(top):
            here = Path(directory)
            wanted = start if here == top else ""
            directories[:] = [name for name in directories if _is_listed(name, wanted)]
            for name in names:
                if not _is_listed(name, wanted):
                    continue
                path = here / name
                with local_errors("The storage could not be listed."):
                    found = self._stat(path.relative_to(self.root).as_posix(), path)
                if found is not None:
                    yield found

    def _remove_empty(self, directory: Path) -> None:
        while directory != self.root:
            try:
                directory.rmdir()
            except FileNotFoundError:
                pass
            except OSError:
                return
            directory = directory.parent

    def _remove_stale(self) -> None:
        for path in self._incoming.iterdir():
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < time.time() - STALE_SECONDS:
                    path.unlink()

    def _check_signature(self, message: Sequence[str], query: Mapping[str, str]) -> None:
        expected, given = self._signature(message), query.get("signature", "")
        if not hmac.compare_digest(expected.encode(), given.encode("utf-8", "surrogatepass")):
            raise NotFound("There is nothing at this address.")
        if int(query["expires"]) <= self._clock():
            raise Forbidden("This link has expired.")

    def _signature(self, message: Sequence[str]) -> str:
        # JSON is unambiguous: no other message has the same text.
        digest = hmac.new(self._url_key, json.dumps(message).encode(), hashlib.sha256).digest()
        return urlsafe_b64encode(digest).decode().rstrip("=")


def _is_listed(name: str, start: str) -> bool:
    return name.startswith(start) and not name.startswith(".")


def _type_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.type")


def _chunks(file: BinaryIO, length: int | None) -> Iterator[bytes]:
    with file:
        left = length
        while left is None or left > 0:
            chunk = file.read(CHUNK_BYTES if left is None else min(CHUNK_BYTES, left))
            if not chunk:
                return
            if left is not None:
                left -= len(chunk)
            yield chunk
