"""Videos on their way to the server: small ones in one request, others in parts that may be sent again."""

from __future__ import annotations

import hashlib
import threading
import unicodedata
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from regen_client.answers import File, Progress
from regen_client.calls import Calls
from regen_client.errors import ApiError, RegenError
from regen_client.flows import Call, FilePart, Flow, Together

SMALL_BYTES = 8 * 1024 * 1024
# How many uploads are opened for one video when others take its upload, and the answers that tell of it.
MOST_UPLOADS = 3
TAKEN, REPLACED = frozenset({404, 409}), 400
# The ids of those of this process, which no other transfer may go on with.
_under_way: set[str] = set()

OnProgress = Callable[[Progress], None]


def upload(calls: Calls, path: Path, *, parts_at_once: int, on_progress: OnProgress | None) -> Flow[File]:
    before = yield Call(path.stat)
    if before.st_size <= SMALL_BYTES:
        return File.read((yield from send_whole(calls, "/v1/files", "file", path, {}, on_progress)))
    asked = {"name": _sent_name(path), "size_bytes": before.st_size}
    row, received = yield from _find(calls, asked, path)
    tries_left = MOST_UPLOADS
    while True:
        tries_left -= 1
        if row is None or row["id"] in _under_way:
            received = ()
            row = yield from calls.row("POST", "/v1/uploads", "upload", json=asked)
        _under_way.add(row["id"])
        taken = TAKEN
        try:
            sent = _PartsSent(row, on_progress)
            for part in received:
                sent.finish(part["number"], part["etag"])
            parts = yield from _send_all(calls, row, path, sent, parts_at_once=parts_at_once)
            after = yield Call(path.stat)
            if (after.st_mtime_ns, after.st_size) != (before.st_mtime_ns, before.st_size):
                raise RegenError(f"{path} changed while it was sent.")
            taken = TAKEN | {REPLACED}
            completed = f"/v1/uploads/{row['id']}/complete"
            return File.read(
                (yield from calls.row("POST", completed, "file", json={"parts": parts}, slow=True))
            )
        except ApiError as error:
            # Another program that sends a video of this name and size may have taken the same upload.
            if error.status not in taken or not tries_left:
                raise
        finally:
            _under_way.discard(row["id"])
        row = None


def _send_all(
    calls: Calls, row: Mapping[str, Any], path: Path, sent: _PartsSent, *, parts_at_once: int
) -> Flow[list[dict[str, Any]]]:
    """Sends the parts that are missing; the numbers and ETags of all."""
    waiting = deque(number for number in range(1, row["partCount"] + 1) if number not in sent.etags)
    if waiting:
        flows = [
            _send_parts(calls, row, path, waiting, sent) for _ in range(min(parts_at_once, len(waiting)))
        ]
        yield Together(flows, stop=waiting.clear)
    return [{"number": number, "etag": etag} for number, etag in sorted(sent.etags.items())]


def send_whole(
    calls: Calls,
    url: str,
    name: str,
    path: Path,
    fields: Mapping[str, str],
    on_progress: OnProgress | None,
    headers: Mapping[str, str] | None = None,
) -> Flow[Any]:
    """The property `name` of the answer to a form with the file, which is read into memory."""
    content: bytes = yield Call(path.read_bytes)
    if not content:
        raise RegenError(f"{path} is empty.")
    files = {"file": (_sent_name(path), content)}
    row = yield from calls.row("POST", url, name, files=files, data=dict(fields), headers=headers, slow=True)
    if on_progress:
        on_progress(Progress(stage="upload", done=len(content), total=len(content)))
    return row


def _sent_name(path: Path) -> str:
    """A file's name as the API takes it: without control characters, with question marks for bytes that are no text."""
    text = path.name.encode("utf-8", "replace").decode()
    return "".join(one for one in text if unicodedata.category(one) != "Cc")


class _PartsSent:
    """The ETags of parts that arrived, and the bytes of those under way. Threads share it."""

    def __init__(self, upload: Mapping[str, Any], on_progress: OnProgress | None) -> None:
        self.etags: dict[int, str] = {}
        self._bytes: dict[int, int] = {}
        self._upload = upload
        self._on_progress = on_progress
        self._lock = threading.Lock()

    def count(self, number: int, sent_bytes: int) -> None:
        with self._lock:
            self._bytes[number] = sent_bytes
            if self._on_progress:
                done, total = sum(self._bytes.values()), self._upload["sizeBytes"]
                self._on_progress(Progress(stage="upload", done=done, total=total))

    def finish(self, number: int, etag: str) -> None:
        self.etags[number] = etag
        self.count(number, _place(self._upload, number)[1])


def _place(upload: Mapping[str, Any], number: int) -> tuple[int, int]:
    """Where a part begins in the file, and its length, in bytes."""
    start = (number - 1) * upload["partSizeBytes"]
    return start, min(upload["partSizeBytes"], upload["sizeBytes"] - start)


def _find(
    calls: Calls, asked: Mapping[str, Any], path: Path
) -> Flow[tuple[Mapping[str, Any] | None, Sequence[Mapping[str, Any]]]]:
    """The open upload of this name and size of which most was received, and its parts that are this file's; None
    where there is none, or where another file's are all that it has."""
    best, received = None, []
    for row in (yield from calls.rows("/v1/uploads", "uploads", most=1000)):
        if (row["status"], row["name"], row["sizeBytes"]) != ("open", asked["name"], asked["size_bytes"]):
            continue
        if row["id"] in _under_way:
            continue
        upload = yield from calls.row("GET", f"/v1/uploads/{row['id']}", "upload")
        parts = upload.get("receivedParts") or []
        same = []
        for part in parts:
            if (yield Call(partial(_is_same, part, path, upload))):
                same.append(part)
        if (same or not parts) and (best is None or len(same) > len(received)):
            best, received = upload, same
    return best, received


def _is_same(part: Mapping[str, Any], path: Path, upload: Mapping[str, Any]) -> bool:
    """Whether a received part is this file's, by its ETag: MD5 from S3, the start of SHA-256 from local storage. Of
    others nothing is known, and the part is sent again: another file may have the same name and size.
    """
    digests = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    for block in FilePart(path, *_place(upload, part["number"]), lambda _: None):
        for digest in digests:
            digest.update(block)
    etag = part["etag"].strip('"').lower()
    return len(etag) >= 32 and any(digest.hexdigest().startswith(etag) for digest in digests)


def _send_parts(
    calls: Calls, upload: Mapping[str, Any], path: Path, waiting: deque[int], sent: _PartsSent
) -> Flow[None]:
    """Sends parts until none waits; the other flows take from the same queue."""
    try:
        while waiting:
            try:
                number = waiting.popleft()
            except IndexError:
                return
            yield from _send_part(calls, upload, path, number, sent)
    except BaseException:
        waiting.clear()
        raise


def _send_part(
    calls: Calls, upload: Mapping[str, Any], path: Path, number: int, sent: _PartsSent
) -> Flow[None]:
    retries = calls.new_retries()
    body = FilePart(path, *_place(upload, number), lambda sent_bytes: sent.count(number, sent_bytes))
    while True:
        # A fresh URL for each try: signed ones expire.
        query = {"after": number - 1, "limit": 1}
        (part,) = yield from calls.row("GET", f"/v1/uploads/{upload['id']}/parts", "parts", params=query)
        try:
            response: httpx.Response = yield from calls.once("PUT", part["url"], part=body)
        except RegenError as error:
            sent.count(number, 0)
            expired = isinstance(error, ApiError) and error.status == 403
            yield retries.pause(error, expired=expired)
        else:
            sent.finish(number, response.headers["ETag"])
            return
