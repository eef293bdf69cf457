"""What tests may ask of a mock: the requests received, without keys and without the videos themselves, and others."""

import hashlib
import json
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qsl

from python_multipart.multipart import parse_options_header
from starlette.types import Scope

from app.http.multipart import MultipartParts
from app.platform.errors import InvalidRequest

MOST_ENTRIES = 1000
MOST_TEXT_BYTES = 64 * 1024
REMOVED = "[removed]"
SECRET_HEADERS = frozenset({"authorization", "x-api-key", "cookie", "proxy-authorization"})


@dataclass(kw_only=True)
class Entry:
    """`number` counts from 1, from the start or the last time that the log was cleared."""

    number: int


E = TypeVar("E", bound=Entry)


class Log(Generic[E]):
    """The last MOST_ENTRIES entries, in the order of their numbers. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: deque[E] = deque(maxlen=MOST_ENTRIES)

    def add(self, make: Callable[[int], E]) -> E:
        """Keeps and returns what `make` returns for the next number."""
        with self._lock:
            entry = make(self._kept[-1].number + 1 if self._kept else 1)
            self._kept.append(entry)
            return entry

    def all(self) -> list[E]:
        with self._lock:
            return list(self._kept)

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()


@dataclass(kw_only=True)
class ReceivedFile:
    """A file in a form, or a body that is not a form. `field` is the part's name."""

    field: str | None
    name: str | None
    size_bytes: int = 0
    sha256: str = ""


@dataclass(kw_only=True)
class ReceivedRequest(Entry):
    """`status` is that of the answer; None when the connection was cut first. `fault` is the action of a rule."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    fields: dict[str, str] = field(default_factory=dict)
    json: Any = None
    files: list[ReceivedFile] = field(default_factory=list)
    status: int | None = None
    fault: dict[str, Any] | None = None


def received_request(scope: Scope, number: int) -> ReceivedRequest:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    return ReceivedRequest(
        number=number,
        method=scope["method"],
        path=scope["path"],
        query=dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)),
        headers={name: REMOVED if name in SECRET_HEADERS else value for name, value in headers.items()},
    )


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
        self._name: str | None = None
        self._text = bytearray()
        self._file: ReceivedFile | None = None
        self._digest = hashlib.sha256()
        self._parts = MultipartParts(boundary[:70], self)

    def feed(self, data: bytes) -> None:
        if self._malformed:
            return
        try:
            self._parts.feed(data)
        except InvalidRequest:
            self._malformed = True

    def begin_part(self, disposition: Mapping[str, str], headers: Mapping[bytes, bytes]) -> None:
        del headers
        self._name, self._file = disposition.get("name"), None
        self._text.clear()
        if "filename" in disposition or self._name == "file":
            self._file = ReceivedFile(field=self._name or "", name=disposition.get("filename"))
            self._digest = hashlib.sha256()
            self._request.files.append(self._file)

    def part_data(self, data: memoryview) -> None:
        if self._file is not None:
            self._file.size_bytes += len(data)
            self._digest.update(data)
        elif len(self._text) < MOST_TEXT_BYTES:
            self._text += data

    def end_part(self) -> None:
        if self._file is not None:
            self._file.sha256 = self._digest.hexdigest()
        elif self._name is not None:
            self._request.fields[self._name] = self._text.decode("utf-8", errors="replace")
