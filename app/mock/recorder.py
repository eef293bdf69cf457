"""Records the requests received, without keys and without the videos themselves."""

import hashlib
import json
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.types import Scope

from app.platform.file_names import disposition_parameters

MOST_REQUESTS = 1000
MOST_TEXT_BYTES = 64 * 1024
MOST_PARTS = 64
REMOVED = "[removed]"
SECRET_HEADERS = frozenset({"authorization", "x-api-key", "cookie", "proxy-authorization"})


@dataclass(kw_only=True)
class ReceivedFile:
    """A file in a form, or a body that is not a form. `field` is the part's name."""

    field: str | None
    name: str | None
    size_bytes: int = 0
    sha256: str = ""


@dataclass(kw_only=True)
class ReceivedRequest:
    """`status` is that of the answer; None when the connection was cut first. `fault` is the action of a rule."""

    number: int
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    fields: dict[str, str] = field(default_factory=dict)
    json: Any = None
    files: list[ReceivedFile] = field(default_factory=list)
    status: int | None = None
    fault: dict[str, Any] | None = None


class RequestRecorder:
    """Keeps the last MOST_REQUESTS requests, in the order in which they came."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: deque[ReceivedRequest] = deque(maxlen=MOST_REQUESTS)
        self._number = 0

    def begin(self, scope: Scope) -> ReceivedRequest:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        with self._lock:
            self._number += 1
            request = ReceivedRequest(
                number=self._number,
                method=scope["method"],
                path=scope["path"],
                query=dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)),
                headers={
                    name: REMOVED if name in SECRET_HEADERS else value for name, value in headers.items()
                },
            )
            self._kept.append(request)
            return request

    def all(self) -> list[ReceivedRequest]:
        with self._lock:
            return list(self._kept)

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()
            self._number = 0


class BodyReader:
    """Records a request's body while the application reads it: fields and JSON as they are, files as size and hash."""

    def __init__(self, request: ReceivedRequest) -> None:
        self._request = request
        kind, parameters = parse_options_header(request.headers.get("content-type", ""))
        self._kind = kind.decode("latin-1")
        self._text = bytearray()
        self._size = 0
        self._digest = hashlib.sha256()
        boundary = parameters.get(b"boundary")
        self._form = (
            _FormRecorder(request, boundary) if self._kind == "multipart/form-data" and boundary else None
        )

    def feed(self, data: bytes) -> None:
        self._size += len(data)
        if self._form is not None:
            self._form.feed(data)
            return
        self._digest.update(data)
        if len(self._text) < MOST_TEXT_BYTES:
            self._text += data[: MOST_TEXT_BYTES - len(self._text)]

    def end(self) -> None:
        """Ends the body, complete or not."""
        if self._form is not None or not self._size:
            return
        whole = self._size <= MOST_TEXT_BYTES
        if whole and self._kind == "application/x-www-form-urlencoded":
            self._request.fields = dict(parse_qsl(self._text.decode("latin-1"), keep_blank_values=True))
            return
        if whole and self._kind.endswith("json"):
            try:
                self._request.json = json.loads(self._text)
            except ValueError:  # recorded as a body
                pass
            else:
                return
        body = ReceivedFile(field=None, name=None, size_bytes=self._size, sha256=self._digest.hexdigest())
        self._request.files = [body]


class _FormRecorder:
    """A multipart form. A malformed one is kept as far as it can be read: the application tells the client."""

    def __init__(self, request: ReceivedRequest, boundary: bytes) -> None:
        self._request = request
        self._malformed = False
        self._parts = 0
        self._header = [bytearray(), bytearray()]
        self._parameters: Mapping[str, str] = {}
        self._text = bytearray()
        self._file: ReceivedFile | None = None
        self._digest = hashlib.sha256()
        self._parser = MultipartParser(
            boundary[:70],
            {
                "on_part_begin": self._begin,
                "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers,
                "on_part_data": self._data,
                "on_part_end": self._end,
            },
        )

    def feed(self, data: bytes) -> None:
        if self._malformed:
            return
        try:
            self._parser.write(data)
        except FormParserError:
            self._malformed = True

    def _begin(self) -> None:
        self._parts += 1
        self._malformed = self._parts > MOST_PARTS
        self._parameters, self._file = {}, None
        self._text.clear()

    def _end_header(self) -> None:
        name, value = bytes(self._header[0]).lower(), bytes(self._header[1])
        self._header = [bytearray(), bytearray()]
        if name == b"content-disposition":
            try:
                self._parameters = disposition_parameters(value)
            except ValueError:
                self._malformed = True

    def _end_headers(self) -> None:
        name = self._parameters.get("name", "")
        if "filename" in self._parameters or name == "file":
            self._file = ReceivedFile(field=name, name=self._parameters.get("filename"))
            self._digest = hashlib.sha256()
            self._request.files.append(self._file)

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.size_bytes += end - start
            self._digest.update(memoryview(data)[start:end])
        elif len(self._text) < MOST_TEXT_BYTES:
            self._text += data[start:end]

    def _end(self) -> None:
        if self._file is not None:
            self._file.sha256 = self._digest.hexdigest()
        elif "name" in self._parameters:
            self._request.fields[self._parameters["name"]] = self._text.decode("utf-8", errors="replace")
