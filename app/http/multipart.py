"""Parses multipart/form-data as it streams in.

`MultipartReceiver` is synchronous and meant for a worker thread: it is fed blocks of the body, writes the part named
`file` to a spool file, counts and hashes it, and keeps short text fields. Its memory does not grow with the body.
"""

import errno
import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from app.files.service import SpooledUpload
from app.platform.errors import InvalidRequest, LimitExceeded, Unavailable
from app.platform.file_names import UNNAMED, disposition_parameters, safe_name
from app.platform.settings import GIB, MIB

FILE_FIELD = "file"
MAX_PARTS = 64
MAX_TEXT_BYTES = 4 * 1024
# The whole body except the file: boundaries, headers, known and unknown fields.
MAX_OVERHEAD_BYTES = MIB
SPOOL_PREFIX = "upload-"
NO_ROOM_RETRY_SECONDS = 60

_PLAIN_ENCODINGS = frozenset({b"", b"binary", b"7bit", b"8bit"})


@dataclass(frozen=True, kw_only=True)
class ReceivedForm:
    """A whole form. `faults` has a sentence for each field that was given wrongly, by the field's name."""

    fields: dict[str, str] = field(default_factory=dict)
    upload: SpooledUpload | None = None
    faults: dict[str, str] = field(default_factory=dict)

    @property
    def content(self) -> list[object]:
        """The fields and the upload's name and hash in JSON types, independent of how the body was encoded."""
        upload = self.upload
        return [sorted(self.fields.items()), None if upload is None else [upload.name, upload.sha256]]


@dataclass(kw_only=True)
class _Part:
    """The part that is being received. `text` is None for the file and for unknown fields."""

    name: str = ""
    text: bytearray | None = None
    is_file: bool = False


class MultipartReceiver:
    """Feed it with `feed`, end with `finish`; call `discard` when the form is not wanted after all.

    `text_fields` are the names of the fields to keep; others are read and dropped. `feed` and `finish` raise
    InvalidRequest for a body that is not proper multipart/form-data or has too many parts, LimitExceeded past
    `max_file_bytes` or 1 MiB of everything else, and Unavailable when there is no room on the disk.
    """

    def __init__(
        self, *, boundary: bytes, spool_dir: Path, max_file_bytes: int, text_fields: frozenset[str]
    ) -> None:
        with _proper_multipart():
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin_part,
                    "on_header_field": self._header_name,
                    "on_header_value": self._header_value,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._end_headers,
                    "on_part_data": self._data,
                    "on_part_end": self._end_part,
                    "on_end": self._end,
                },
            )
        self._spool_dir = spool_dir
        self._max_file_bytes = max_file_bytes
        self._text_fields = text_fields
        self._body_bytes = 0
        self._parts = 0
        self._ended = False
        self._headers: dict[bytes, bytes] = {}
        self._name = bytearray()
        self._value = bytearray()
        self._part = _Part()
        self._fields: dict[str, str] = {}
        self._faults: dict[str, str] = {}
        self._path: Path | None = None
        self._file: BinaryIO | None = None
        self._file_name = UNNAMED
        self._file_name_given = False
        self._file_bytes = 0
        self._digest = hashlib.sha256()

    def feed(self, data: bytes) -> None:
        self._body_bytes += len(data)
        with _proper_multipart(), room_on_disk():
            self._parser.write(data)
        if self._body_bytes - self._file_bytes > MAX_OVERHEAD_BYTES:
            raise LimitExceeded("The fields beside the file are larger than 1 MiB together.")

    def finish(self) -> ReceivedForm:
        """The form. A file field left empty in a browser, without name and content, counts as not given."""
        if not self._ended:
            raise InvalidRequest("The multipart body ends before its closing boundary.")
        upload = None
        if self._file is not None:
            assert self._path is not None
            with room_on_disk():
                self._file.close()
            if self._file_bytes or self._file_name_given:
                upload = SpooledUpload(
                    path=self._path,
                    name=self._file_name,
                    size_bytes=self._file_bytes,
                    sha256=self._digest.hexdigest(),
                )
            else:
                self.discard()
        return ReceivedForm(fields=self._fields, upload=upload, faults=self._faults)

    def discard(self) -> None:
        """Remove the spool file, if it is still where it was written."""
        if self._file is not None:
            try:
                self._file.close()
            except OSError as error:
                # A full disk: the bytes that could not be written are not wanted any more.
                if error.errno not in _NO_ROOM:
                    raise
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _begin_part(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise InvalidRequest(f"The form has more than {MAX_PARTS} parts.")
        self._headers = {}
        self._part = _Part()

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        self._headers.setdefault(bytes(self._name).lower(), bytes(self._value).strip())
        self._name.clear()
        self._value.clear()

    def _end_headers(self) -> None:
        try:
            parameters = disposition_parameters(self._headers.get(b"content-disposition", b""))
        except ValueError as error:
            raise InvalidRequest(
                "A part of the form has a Content-Disposition that cannot be understood.", detail=str(error)
            ) from error
        if "name" not in parameters:
            raise InvalidRequest("A part of the form has no name.")
        name = parameters["name"]
        encoding = self._headers.get(b"content-transfer-encoding", b"").lower()
        if encoding not in _PLAIN_ENCODINGS:
            raise InvalidRequest(f"`{safe_name(name)}` must be sent as it is, without a transfer encoding.")
        if name == FILE_FIELD:
            self._begin_file(parameters.get("filename"))
        elif name in self._text_fields:
            self._part = _Part(name=name, text=bytearray())

    def _begin_file(self, name: str | None) -> None:
        if self._file is not None:
            # At once: the second file may be as large as the first.
            raise InvalidRequest(*self._faults.values(), f"`{FILE_FIELD}` is given more than once.")
        self._part = _Part(name=FILE_FIELD, is_file=True)
        self._file_name_given = bool(name)
        self._file_name = safe_name(name) if name else UNNAMED
        self._path = self._spool_dir / f"{SPOOL_PREFIX}{secrets.token_hex(16)}"
        self._file = self._path.open("xb", buffering=MIB)
        self._path.chmod(0o600)

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._part.is_file:
            assert self._file is not None
            self._file_bytes += end - start
            if self._file_bytes > self._max_file_bytes:
                raise file_too_large(self._max_file_bytes)
            block = memoryview(data)[start:end]
            self._digest.update(block)
            self._file.write(block)
        elif self._part.text is not None:
            self._part.text += data[start:end]
            if len(self._part.text) > MAX_TEXT_BYTES:
                self._fault(self._part.name, f"is longer than {MAX_TEXT_BYTES} bytes.")
                self._part.text = None

    def _end_part(self) -> None:
        part = self._part
        if part.text is None:
            return
        if part.name in self._fields:
            self._fault(part.name, "is given more than once.")
            return
        try:
            self._fields[part.name] = part.text.decode("utf-8")
        except UnicodeDecodeError:
            self._fault(part.name, "is not valid UTF-8 text.")

    def _end(self) -> None:
        self._ended = True

    def _fault(self, name: str, fault: str) -> None:
        self._faults.setdefault(name, f"`{name}` {fault}")


_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def file_too_large(max_file_bytes: int) -> LimitExceeded:
    return LimitExceeded(f"The file is larger than the limit of {_readable(max_file_bytes)}.")


def _readable(size_bytes: int) -> str:
    for unit_bytes, unit in ((GIB, "GiB"), (MIB, "MiB"), (1024, "KiB")):
        if size_bytes % unit_bytes == 0:
            return f"{size_bytes // unit_bytes} {unit}"
    return f"{size_bytes} bytes"


@contextmanager
def _proper_multipart() -> Iterator[None]:
    try:
        yield
    except FormParserError as error:
        raise InvalidRequest("The body is not proper multipart/form-data.", detail=str(error)) from error


@contextmanager
def room_on_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise Unavailable(
                "There is no room for uploads just now. Try again later.",
                retry_after_seconds=NO_ROOM_RETRY_SECONDS,
                detail=str(error),
            ) from error
        raise
