"""Parses multipart/form-data as it arrives.

`MultipartParts` splits a body into its parts. `MultipartReceiver` is synchronous and meant for a worker
thread: it receives blocks of the body, writes the part named `file` to a spool file, counts and hashes it,
and keeps short text fields. Its memory does not grow with the body.
"""

import errno
import hashlib
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NoReturn, Protocol

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from app.files.service import SpooledUpload
from app.http.spool_space import FORM_BYTES, new_spool_path, no_room
from app.platform.byte_sizes import GIB, MIB
from app.platform.errors import InvalidRequest, LimitExceeded
from app.platform.file_names import UNNAMED, disposition_parameters, safe_name
from app.platform.quoting import quoted
from app.platform.secrets import ID_LENGTH, is_id

FILE_FIELD = "file"
MAX_PARTS = 64
MAX_TEXT_BYTES = 4 * 1024

_PLAIN_ENCODINGS = frozenset({b"", b"binary", b"7bit", b"8bit"})
_MALFORMED = "The body is not valid multipart/form-data."


class PartSink(Protocol):
    """Receives the parts of a multipart body, one after the other."""

    def begin_part(self, disposition: Mapping[str, str], headers: Mapping[bytes, bytes]) -> None:
        """The parameters of its Content-Disposition, and its headers by lower-case name."""

    def part_data(self, data: memoryview) -> None:
        """The next bytes of its content. The view holds until this returns."""

    def end_part(self) -> None: ...


class MultipartParts:
    """Splits a body given in blocks.

    Ignores bytes before the first boundary and after the last. Each method raises InvalidRequest for a body
    that is not multipart or has too many parts; `sink` may raise as well.
    """

    def __init__(self, boundary: bytes, sink: PartSink) -> None:
        self._sink = sink
        self._delimiter = b"\r\n--" + boundary
        # A delimiter begins a line; the body's first line is one.
        self._preamble: bytes | None = b"\r\n"
        self._is_empty = True
        self._has_ended = False
        self._parts = 0
        self._headers: dict[bytes, bytes] = {}
        self._name = bytearray()
        self._value = bytearray()
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
                    "on_part_end": sink.end_part,
                    "on_end": self._end,
                },
            )

    def feed(self, data: bytes) -> None:
        self._is_empty = self._is_empty and not data
        if self._preamble is not None:
            data = self._after_preamble(self._preamble + data)
        with _proper_multipart():
            self._parser.write(data)

    def finish(self) -> None:
        """Raises InvalidRequest unless the closing boundary has arrived."""
        if not self._has_ended:
            is_ours = self._preamble is None or self._is_empty
            raise InvalidRequest(
                "The multipart body ends before its closing boundary." if is_ours else _MALFORMED
            )

    def _after_preamble(self, data: bytes) -> bytes:
        start = data.find(self._delimiter)
        if start < 0:
            self._preamble = data[1 - len(self._delimiter) :]
            return b""
        self._preamble = None
        return data[start + 2 :]

    def _begin_part(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise InvalidRequest(f"The form has more than {MAX_PARTS} parts.")
        self._headers = {}

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
            disposition = disposition_parameters(self._headers.get(b"content-disposition", b""))
        except ValueError as error:
            raise InvalidRequest(
                "A part of the form has a Content-Disposition that cannot be parsed.", detail=str(error)
            ) from error
        self._sink.begin_part(disposition, self._headers)

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._sink.part_data(memoryview(data)[start:end])

    def _end(self) -> None:
        self._has_ended = True


@dataclass(frozen=True, kw_only=True)
class ReceivedForm:
    """A complete form.

    `faults` has a sentence for each faulty field, by the field's name. `unknown` has the unknown names, and whether
    each contains a file; `warnings` reports them. `hints` are sentences that may explain why a request is refused.
    """

    fields: dict[str, str] = field(default_factory=dict)
    upload: SpooledUpload | None = None
    faults: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, bool] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)

    @property
    def content(self) -> list[object]:
        """The fields and the upload's name and hash in JSON types, independent of how the body was encoded."""
        upload = self.upload
        return [sorted(self.fields.items()), None if upload is None else [upload.name, upload.sha256]]


@dataclass(kw_only=True)
class _Part:
    """The part being received. `text` is None for the file and for unknown fields."""

    name: str = ""
    text: bytearray | None = None
    is_file: bool = False
    has_file_name: bool = False


class MultipartReceiver:
    """Feed it with `feed`, end with `finish`; call `discard` to give the form up.

    `text_fields` are the names of the fields to keep; others are read and discarded. `feed` and `finish`
    raise InvalidRequest for a body that is not valid multipart/form-data or has too many parts, LimitExceeded
    above `max_file_bytes` or 1 MiB of everything else, and Unavailable when the disk is full.
    """

    def __init__(
        self, *, boundary: bytes, spool_dir: Path, max_file_bytes: int, text_fields: frozenset[str]
    ) -> None:
        self._form = MultipartParts(boundary, self)
        self._spool_dir = spool_dir
        self._max_file_bytes = max_file_bytes
        self._text_fields = text_fields
        self._body_bytes = 0
        self._part = _Part()
        self._fields: dict[str, str] = {}
        self._faults: dict[str, str] = {}
        self._unknown: dict[str, bool] = {}
        self._path: Path | None = None
        self._file: BinaryIO | None = None
        self._file_name = UNNAMED
        self._file_name_given = False
        self._file_bytes = 0
        self._digest = hashlib.sha256()

    def feed(self, data: bytes) -> None:
        self._body_bytes += len(data)
        with room_on_disk():
            self._form.feed(data)
        if self._body_bytes - self._file_bytes > FORM_BYTES:
            raise LimitExceeded("The fields beside the file are larger than 1 MiB together.")

    def finish(self) -> ReceivedForm:
        """The form. A file field left empty in a browser, without name and content, counts as absent."""
        self._form.finish()
        upload = None
        if self._file is not None:
            assert self._path is not None
            with room_on_disk():
                self._file.close()
            text = self._text_for_a_file()
            if text is not None:
                self._faults.setdefault(FILE_FIELD, not_a_file(text, self._text_fields))
            elif self._file_bytes or self._file_name_given:
                upload = SpooledUpload(
                    path=self._path,
                    name=self._file_name,
                    size_bytes=self._file_bytes,
                    sha256=self._digest.hexdigest(),
                )
        return ReceivedForm(fields=self._fields, upload=upload, faults=self._faults, unknown=self._unknown)

    def _text_for_a_file(self) -> str | None:
        """A line of text instead of the file, as `curl -F file=clip.mp4` sends it; None for anything else."""
        assert self._path is not None
        if self._file_name_given or not 0 < self._file_bytes <= MAX_TEXT_BYTES:
            return None
        try:
            text = self._path.read_bytes().decode("utf-8").strip()
        except UnicodeDecodeError:
            return None
        return text if text.isprintable() else None

    def discard(self) -> None:
        """Remove the spool file, unless it was moved."""
        if self._file is not None:
            try:
                self._file.close()
            except OSError as error:
                # A full disk: the unwritten bytes are no longer needed.
                if error.errno not in _NO_ROOM:
                    raise
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def begin_part(self, disposition: Mapping[str, str], headers: Mapping[bytes, bytes]) -> None:
        self._part = _Part()
        if "name" not in disposition:
            raise InvalidRequest("A part of the form has no name.")
        name = disposition["name"]
        encoding = headers.get(b"content-transfer-encoding", b"").lower()
        if encoding not in _PLAIN_ENCODINGS:
            raise InvalidRequest(f"`{safe_name(name)}` must be sent as it is, without a transfer encoding.")
        if name == FILE_FIELD:
            self._begin_file(disposition.get("filename"))
        else:
            self._part = _Part(
                name=name,
                text=bytearray() if name in self._text_fields else None,
                has_file_name=bool(disposition.get("filename")),
            )

    def _begin_file(self, name: str | None) -> None:
        if self._file_bytes or self._file_name_given:
            if name:
                self._refuse_second_file()
            # If it is also empty, it counts as absent.
            self._part = _Part(name=FILE_FIELD)
            return
        self._part = _Part(name=FILE_FIELD, is_file=True)
        self._file_name_given = bool(name)
        self._file_name = safe_name(name) if name else UNNAMED
        if self._file is not None:
            return
        self._path = new_spool_path(self._spool_dir)
        self._file = self._path.open("xb", buffering=MIB)
        self._path.chmod(0o600)

    def _refuse_second_file(self) -> NoReturn:
        # At once: the second file may be as large as the first.
        raise InvalidRequest(*self._faults.values(), f"`{FILE_FIELD}` is given more than once.")

    def part_data(self, data: memoryview) -> None:
        if self._part.is_file:
            assert self._file is not None
            self._file_bytes += len(data)
            if self._file_bytes > self._max_file_bytes:
                raise file_too_large(self._max_file_bytes)
            self._digest.update(data)
            self._file.write(data)
        elif self._part.text is not None:
            self._part.text += data
            if len(self._part.text) > MAX_TEXT_BYTES:
                self._fault(self._part.name, f"is longer than {MAX_TEXT_BYTES} bytes.")
                self._part.text = None
        elif self._part.name == FILE_FIELD:
            self._refuse_second_file()
        elif self._part.name not in self._text_fields:
            # Empty ones count as not given.
            self._unknown.setdefault(self._part.name, self._part.has_file_name)

    def end_part(self) -> None:
        part = self._part
        if part.text is None or not part.text.strip():
            return
        if part.name in self._fields:
            self._fault(part.name, "is given more than once.")
            return
        try:
            self._fields[part.name] = part.text.decode("utf-8")
        except UnicodeDecodeError:
            self._fault(part.name, "is not valid UTF-8 text.")

    def _fault(self, name: str, fault: str) -> None:
        self._faults.setdefault(name, f"`{name}` {fault}")


_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def file_too_large(max_file_bytes: int) -> LimitExceeded:
    return LimitExceeded(f"The file is larger than the limit of {_readable(max_file_bytes)}.")


def not_a_file(value: object, text_fields: Collection[str]) -> str:
    """The sentence about a `file` that is text or another JSON value: what to send instead."""
    if "file_url" in text_fields and re.match("https?://", str(value)):
        advice = "the URL of a video belongs in `file_url`"
    elif "file_id" in text_fields and is_id(str(value)) and len(str(value)) == ID_LENGTH:
        advice = "the id of an uploaded file belongs in `file_id`"
    else:
        advice = "send the file itself in a multipart/form-data body, as `curl -F file=@clip.mp4` does"
    return f"`{FILE_FIELD}` is not a file but {quoted(value)}: {advice}."


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
        raise InvalidRequest(_MALFORMED, detail=str(error)) from error


@contextmanager
def room_on_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise no_room(str(error)) from error
        raise
