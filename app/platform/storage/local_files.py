"""The files under local storage: durable operations, their failures as typed errors, and uploads in parts.

A durable operation survives a power cut after its return. An upload in parts is a directory whose name no key can
have. A part is a file in it: its bytes followed by their digest, so that one rename puts both in place. A part that is
being received is among the storage's other incoming files.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from app.platform.errors import Conflict, InvalidRequest, KeyNotFound, NotFound, StorageError
from app.platform.progress import current_progress
from app.platform.storage.contract import StoredPart

PARTS_URL_PREFIX = "/storage-parts/"

PARTS = ".parts"
# An upload lives two days at most; an older directory belongs to no upload.
STALE_SECONDS = 7 * 24 * 3600

# The length of the digest at the end of a part's file. In hex it is the part's ETag.
DIGEST_BYTES = 16
COPY_BYTES = 1024**2
# Errors of a disk that still counts as working.
SLOWEST_BYTES_PER_SECOND = 1024**2
ENDED = "This upload has ended."
NOT_STORED = "The part could not be stored."
_ID = re.compile(r"[0-9a-f]{32}")
_FACTS = "upload.json"


@contextmanager
def local_errors(sentence: str, *, source: Path | None = None) -> Iterator[None]:
    """Raises StorageError with that sentence, or KeyNotFound when `source` is not a file."""
    try:
        yield
    except OSError as error:
        # Another process may have deleted the file since the caller's check.
        if source is not None and not source.is_file():
            raise not_found(source) from error
        raise StorageError(sentence, detail=str(error)) from error


def not_found(path: Path) -> KeyNotFound:
    return KeyNotFound("The file is not in the storage.", detail=f"no object at {path}")


def sync_file(path: Path) -> None:
    """Flush the file's bytes to the disk."""
    _sync(path, os.O_RDONLY)


def sync_directory(path: Path) -> None:
    """Flush the directory's entries to the disk. Does nothing where directories cannot be opened."""
    if hasattr(os, "O_DIRECTORY"):
        _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def make_directories(path: Path) -> None:
    """Create `path` and its missing parents durably."""
    if path.is_dir():
        return
    make_directories(path.parent)
    try:
        path.mkdir()
    except FileExistsError:
        if not path.is_dir():
            raise
        return
    sync_directory(path.parent)


def copy_file(source: Path, destination: Path) -> None:
    """Copy the bytes, without metadata, durably. `destination` must not exist."""
    with source.open("rb") as reader, destination.open("xb") as writer:
        progress = current_progress()
        while chunk := reader.read(COPY_BYTES):
            writer.write(chunk)
            progress.beat()
        writer.flush()
        _flush(writer.fileno())


@dataclass(frozen=True, kw_only=True)
class SignedPart:
    """The part that a signed URL accepts."""

    multipart_id: str
    number: int
    size_bytes: int


class LocalParts:
    """The uploads in parts. `incoming` and `root` are on one file system; its failures raise OSError."""

    def __init__(self, *, root: Path, incoming: Path) -> None:
        self._root = root / PARTS
        self._incoming = incoming

    def open(self, key: str, *, content_type: str) -> str:
        multipart_id = secrets.token_hex(16)
        directory = self._root / multipart_id
        make_directories(directory)
        facts = directory / _FACTS
        facts.write_text(json.dumps({"key": key, "content_type": content_type}), "utf-8")
        sync_file(facts)
        sync_directory(directory)
        return multipart_id

    def content_type(self, key: str, multipart_id: str) -> str:
        """The content type of the future object. Raises KeyNotFound when there is no such upload of that key."""
        try:
            facts = json.loads((self._directory(multipart_id) / _FACTS).read_text("utf-8"))
        except FileNotFoundError as error:
            raise _gone(multipart_id) from error
        if facts["key"] != key:
            raise _gone(multipart_id)
        return str(facts["content_type"])

    def list(self, multipart_id: str) -> Sequence[StoredPart]:
        """The received parts by number. Raises KeyNotFound when the upload has ended."""
        parts = []
        try:
            for path in self._directory(multipart_id).iterdir():
                if path.name != _FACTS:
                    parts.append(_read_part(path))
        except FileNotFoundError as error:
            raise _gone(multipart_id) from error
        return sorted(parts, key=lambda part: part.number)

    def join(self, multipart_id: str, parts: Sequence[StoredPart]) -> Path:
        """Join these parts durably in a new incoming file. Raises KeyNotFound when one is missing or was replaced."""
        directory, joined = self._directory(multipart_id), self._incoming / secrets.token_hex(16)
        try:
            with joined.open("xb") as writer:
                for part in parts:
                    _append(directory / str(part.number), part, writer)
        except BaseException:
            joined.unlink(missing_ok=True)
            raise
        sync_file(joined)
        return joined

    def remove(self, multipart_id: str) -> None:
        if _ID.fullmatch(multipart_id):
            # The rename takes effect at once: a part that is being received finds no directory.
            ended = self._root / f"ended-{secrets.token_hex(8)}"
            with suppress(FileNotFoundError):
                self._directory(multipart_id).rename(ended)
                shutil.rmtree(ended)

    def remove_stale(self) -> None:
        """Remove what crashes left: uploads that the database does not know, and half-removed ones."""
        with suppress(FileNotFoundError):
            for path in self._root.iterdir():
                with suppress(FileNotFoundError):
                    if path.stat().st_mtime < time.time() - STALE_SECONDS:
                        shutil.rmtree(path, ignore_errors=True)

    def receive(self, part: SignedPart) -> "PartReceiver":
        """A receiver of the part's bytes. Raises NotFound when the upload has ended."""
        directory = self._directory(part.multipart_id)
        if not directory.is_dir():
            raise NotFound(ENDED)
        return PartReceiver(part, directory=directory, incoming=self._incoming)

    def _directory(self, multipart_id: str) -> Path:
        if not _ID.fullmatch(multipart_id):
            raise _gone(multipart_id)
        return self._root / multipart_id


class PartReceiver:
    """Receives a part's bytes: `feed` each block, then `finish`; `discard` in any case.

    A part has one receiver at a time: once a later one has begun, an earlier raises Conflict.
    """

    def __init__(self, part: SignedPart, *, directory: Path, incoming: Path) -> None:
        self._part = part
        self._directory = directory
        self._token = secrets.token_hex(16)
        self._path = incoming / self._token
        # The last receiver of the part, among all processes of this machine.
        self._last = incoming / f"last-{part.multipart_id}-{part.number}"
        self._last.write_text(self._token)
        self._file = self._path.open("xb")
        self._digest = hashlib.sha256()
        self._got_bytes = 0

    def feed(self, block: bytes) -> None:
        """Raises InvalidRequest if the part becomes too large, Conflict if it is sent again."""
        self._require_last()
        self._got_bytes += len(block)
        if self._got_bytes > self._part.size_bytes:
            raise wrong_size(self._part.size_bytes)
        self._digest.update(block)
        with local_errors(NOT_STORED):
            self._file.write(block)

    def finish(self) -> StoredPart:
        """Store the part, replacing an earlier one. Raises InvalidRequest when bytes are missing, NotFound if
        the upload has ended, Conflict if the part is sent again."""
        self._require_last()
        if self._got_bytes != self._part.size_bytes:
            raise wrong_size(self._part.size_bytes)
        digest = self._digest.digest()[:DIGEST_BYTES]
        with local_errors(NOT_STORED):
            self._file.write(digest)
            self._file.close()
            sync_file(self._path)
            try:
                self._path.replace(self._directory / str(self._part.number))
                sync_directory(self._directory)
            except FileNotFoundError as error:
                raise NotFound(ENDED) from error
        return StoredPart(number=self._part.number, etag=digest.hex(), size_bytes=self._got_bytes)

    def discard(self) -> None:
        with suppress(OSError):  # closing flushes, which fails on a full disk
            self._file.close()
        self._path.unlink(missing_ok=True)
        if self._is_last():
            self._last.unlink(missing_ok=True)

    def _is_last(self) -> bool:
        with suppress(FileNotFoundError):
            return self._last.read_text() == self._token
        return False

    def _require_last(self) -> None:
        if not self._is_last():
            raise sent_once_more()


def sent_once_more() -> Conflict:
    return Conflict("This part is being sent again: this request ended in favour of the later one.")


def signed_part_message(query: Mapping[str, str], *, multipart_id: str, number: str) -> list[str]:
    """The message that the signature of a part's URL signs."""
    return ["PUT", multipart_id, number, query.get("size", ""), query.get("expires", "")]


def wrong_size(size_bytes: int) -> InvalidRequest:
    return InvalidRequest(f"This part must have {size_bytes:,} bytes.")


def _read_part(path: Path) -> StoredPart:
    with path.open("rb") as file:
        size_bytes = file.seek(-DIGEST_BYTES, os.SEEK_END)
        return StoredPart(number=int(path.name), etag=file.read().hex(), size_bytes=size_bytes)


def _append(path: Path, part: StoredPart, writer: BinaryIO) -> None:
    try:
        reader = path.open("rb")
    except FileNotFoundError as error:
        raise KeyNotFound("A part of the upload is not in the storage.", detail=f"no file {path}") from error
    digest, left = hashlib.sha256(), part.size_bytes
    with reader:
        for block in _blocks(reader, left):
            digest.update(block)
            writer.write(block)
            left -= len(block)
    if left or digest.digest()[:DIGEST_BYTES].hex() != part.etag:
        raise KeyNotFound(
            "A part of the upload was replaced in the meantime.", detail=f"{path} is not {part.etag}"
        )


def _blocks(reader: BinaryIO, size_bytes: int) -> Iterator[bytes]:
    while size_bytes > 0 and (block := reader.read(min(COPY_BYTES, size_bytes))):
        size_bytes -= len(block)
        yield block


def _gone(multipart_id: str) -> KeyNotFound:
    return KeyNotFound("This upload is not in the storage.", detail=f"no upload {multipart_id}")


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        _flush(descriptor)
    finally:
        os.close(descriptor)


def _flush(descriptor: int) -> None:
    slowest_seconds = os.fstat(descriptor).st_size / SLOWEST_BYTES_PER_SECOND
    with current_progress().allowing(slowest_seconds):
        os.fsync(descriptor)
