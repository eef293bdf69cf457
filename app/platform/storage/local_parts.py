"""Uploads in parts of local storage.

Each upload is a directory whose name no key can have. A part is a file in it: its bytes, and their digest at the end,
so that one rename puts both in place. What is being written lies among the storage's other incoming files.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from app.platform.errors import InvalidRequest, KeyNotFound, NotFound
from app.platform.storage.contract import ReceivedPart
from app.platform.storage.durable import make_directories, sync_directory, sync_file
from app.platform.storage.local_errors import local_errors

PARTS_URL_PREFIX = "/storage-parts/"

PARTS = ".parts"
# Uploads live two days at most; directories older than this belong to none.
STALE_SECONDS = 7 * 24 * 3600

# What a digest takes at the end of a part's file. It is also the part's ETag, in hex.
DIGEST_BYTES = 16
COPY_BYTES = 1024**2
ENDED = "This upload has ended."
NOT_STORED = "The part could not be stored."
_ID = re.compile(r"[0-9a-f]{32}")
_FACTS = "upload.json"


@dataclass(frozen=True, kw_only=True)
class SignedPart:
    """What a signed URL of a part allows."""

    multipart_id: str
    number: int
    size_bytes: int


class LocalParts:
    """`incoming` and `root` lie on one file system, whose faults are raised as OSError."""

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
        """Of the object that it will be. Raises KeyNotFound when there is no such upload of that key."""
        try:
            facts = json.loads((self._directory(multipart_id) / _FACTS).read_text("utf-8"))
        except FileNotFoundError as error:
            raise _gone(multipart_id) from error
        if facts["key"] != key:
            raise _gone(multipart_id)
        return str(facts["content_type"])

    def list(self, multipart_id: str) -> Sequence[ReceivedPart]:
        """Raises KeyNotFound when the upload is over."""
        parts = []
        try:
            for path in self._directory(multipart_id).iterdir():
                if path.name != _FACTS:
                    parts.append(_read_part(path))
        except FileNotFoundError as error:
            raise _gone(multipart_id) from error
        return sorted(parts, key=lambda part: part.number)

    def join(self, multipart_id: str, parts: Sequence[ReceivedPart]) -> Path:
        """A new file among the incoming ones, of these parts, on the disk. Raises KeyNotFound when one is missing or
        has been replaced."""
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
            # Out of the way in one step: a part that comes in just now finds nothing to be put into.
            ended = self._root / f"ended-{secrets.token_hex(8)}"
            with suppress(FileNotFoundError):
                self._directory(multipart_id).rename(ended)
                shutil.rmtree(ended)

    def remove_stale(self) -> None:
        """What crashes left: uploads that the database does not know, and those that were being removed."""
        with suppress(FileNotFoundError):
            for path in self._root.iterdir():
                with suppress(FileNotFoundError):
                    if path.stat().st_mtime < time.time() - STALE_SECONDS:
                        shutil.rmtree(path, ignore_errors=True)

    def receive(self, part: SignedPart) -> "PartReceiver":
        """Raises NotFound when the upload is over."""
        directory = self._directory(part.multipart_id)
        if not directory.is_dir():
            raise NotFound(ENDED)
        return PartReceiver(part, directory=directory, incoming=self._incoming)

    def _directory(self, multipart_id: str) -> Path:
        if not _ID.fullmatch(multipart_id):
            raise _gone(multipart_id)
        return self._root / multipart_id


class PartReceiver:
    """Takes a part's bytes, block by block: `feed`, then `finish`. `discard` afterwards, whatever happened."""

    def __init__(self, part: SignedPart, *, directory: Path, incoming: Path) -> None:
        self._part = part
        self._directory = directory
        self._path = incoming / secrets.token_hex(16)
        self._file = self._path.open("xb")
        self._digest = hashlib.sha256()
        self._got_bytes = 0

    def feed(self, block: bytes) -> None:
        """Raises InvalidRequest when there is more than the part may have."""
        self._got_bytes += len(block)
        if self._got_bytes > self._part.size_bytes:
            raise wrong_size(self._part.size_bytes)
        self._digest.update(block)
        with local_errors(NOT_STORED):
            self._file.write(block)

    def finish(self) -> ReceivedPart:
        """Put the part in place of an earlier one. Raises InvalidRequest when bytes are missing, NotFound when the
        upload is over."""
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
        return ReceivedPart(number=self._part.number, etag=digest.hex(), size_bytes=self._got_bytes)

    def discard(self) -> None:
        with suppress(OSError):  # the bytes that a full disk did not take are not wanted any more
            self._file.close()
        self._path.unlink(missing_ok=True)


def signed_part_message(query: Mapping[str, str], *, multipart_id: str, number: str) -> list[str]:
    """What the signature of a part's URL is of."""
    return ["PUT", multipart_id, number, query.get("size", ""), query.get("expires", "")]


def wrong_size(size_bytes: int) -> InvalidRequest:
    return InvalidRequest(f"This part must have {size_bytes:,} bytes.")


def _read_part(path: Path) -> ReceivedPart:
    with path.open("rb") as file:
        size_bytes = file.seek(-DIGEST_BYTES, os.SEEK_END)
        return ReceivedPart(number=int(path.name), etag=file.read().hex(), size_bytes=size_bytes)


def _append(path: Path, part: ReceivedPart, writer: BinaryIO) -> None:
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
        raise KeyNotFound("A part of the upload was replaced meanwhile.", detail=f"{path} is not {part.etag}")


def _blocks(reader: BinaryIO, size_bytes: int) -> Iterator[bytes]:
    while size_bytes > 0 and (block := reader.read(min(COPY_BYTES, size_bytes))):
        size_bytes -= len(block)
        yield block


def _gone(multipart_id: str) -> KeyNotFound:
    return KeyNotFound("This upload is not in the storage.", detail=f"no upload {multipart_id}")
