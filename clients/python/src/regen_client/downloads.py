"""Results on their way to the disk: continued where they broke off, and in place only when they are complete."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import re
from collections.abc import Callable
from email.message import Message
from email.utils import collapse_rfc2231_value
from functools import partial
from pathlib import Path
from urllib.parse import quote, unquote

import httpx

from regen_client.answers import Progress
from regen_client.calls import Calls, lost
from regen_client.errors import ApiError, NoAnswer, RegenError
from regen_client.flows import Call, Close, Flow, Read, Streamed
from regen_client.uploads import OnProgress

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LONGEST_NAME_BYTES = 150
CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")


def download(
    calls: Calls, locate: Callable[[], Flow[str]], path: Path, *, on_progress: OnProgress | None
) -> Flow[Path]:
    """The file at the URL that `locate` finds, which is asked again for each try, because signed URLs expire."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name the file to write.")
    retries = calls.new_retries()
    while True:
        url = yield from locate()
        rest: Path | None = yield Call(lambda: _rest(path))
        before: int = (yield Call(rest.stat)).st_size if rest else 0
        try:
            yield from _fetch(calls, url, path, rest, before, on_progress)
        except RegenError as error:
            after = yield Call(lambda: _rest(path))
            if after is not None and (yield Call(after.stat)).st_size > before:
                retries.restart()
            expired = isinstance(error, ApiError) and error.status == 403
            yield retries.pause(error, expired=expired)
        else:
            return path


def server_name(calls: Calls, url: str) -> Flow[str]:
    """What the server calls the file: a plain name, without folders, that is not hidden."""
    # Of one byte: a URL that is signed for GET allows no HEAD.
    streamed: Streamed = yield from calls.once("GET", url, headers={"Range": "bytes=0-0"}, streamed=True)
    yield Close(streamed)
    header = Message()
    header["Content-Disposition"] = streamed.response.headers.get("Content-Disposition", "attachment")
    names = [
        value for key, value in header.get_params([], "Content-Disposition") if key.lower() == "filename"
    ]
    # `filename*`, which is a tuple there, is exact; `filename` beside it is for those who read ASCII alone.
    names.sort(key=lambda value: not isinstance(value, tuple))
    given = collapse_rfc2231_value(names[0]) if names else unquote(httpx.URL(url).path)
    name = "".join(one for one in re.split(r"[/\\]", given)[-1] if one.isprintable()).strip().lstrip(".")
    return name.encode()[-200:].decode(errors="ignore") or "download"


def _fetch(
    calls: Calls, url: str, path: Path, rest: Path | None, offset: int, on_progress: OnProgress | None
) -> Flow[None]:
    """One try, from byte `offset` on if the server still has what is in `rest`. Raises NoAnswer if it breaks off."""
    etag = _etag(rest) if rest else ""
    headers = {"Range": f"bytes={offset}-"} | ({"If-Range": etag} if offset else {})
    try:
        streamed: Streamed = yield from calls.once("GET", url, headers=headers, streamed=True)
    except ApiError as error:
        if error.status == 416 and rest:  # the whole file is there, or it is another one's
            yield Call(partial(rest.unlink, missing_ok=True))
            raise NoAnswer("The download begins again.") from error
        raise
    try:
        start, total = _extent(streamed.response)
        target = _beside(path, streamed.response.headers.get("ETag", ""))
        if start and (start != offset or target != rest):
            raise RegenError("The server answered with another part of the file than was asked for.")
        if rest and target != rest:
            yield Call(partial(rest.unlink, missing_ok=True))  # of a file that has changed since
        claim = yield Call(lambda: _claim(target, start))
        try:
            done = yield from _write(streamed, target, start, total, on_progress)
            if done != total:
                raise NoAnswer(f"The download broke off after {done} of {total} bytes.")
            yield Call(lambda: target.replace(path))
        finally:
            if claim is not None:
                os.close(claim)
    finally:
        yield Close(streamed)


def _write(
    streamed: Streamed, target: Path, done: int, total: int, on_progress: OnProgress | None
) -> Flow[int]:
    """Appends the answer to the `done` bytes that are there; the bytes there are then."""
    with target.open("ab" if done else "wb") as file:
        try:
            while (block := (yield Read(streamed))) is not None:
                yield Call(partial(file.write, block))
                done += len(block)
                if on_progress:
                    on_progress(Progress(stage="download", done=done, total=total))
        except httpx.TransportError as error:
            raise lost(error) from error
        except OSError as error:  # a full disk, which does not name its file
            raise type(error)(error.errno, error.strerror, str(target)) from error
    return done


def _claim(target: Path, start: int) -> int | None:
    """A descriptor that keeps other downloads from this incomplete file until it is closed; None where a system has no
    such locks. Raises RegenError while another one has it, NoAnswer if it is no longer as long as was seen."""
    if fcntl is None:
        return None
    claim = os.open(target, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        with contextlib.suppress(OSError):  # of file systems without locks
            try:
                fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RegenError(f"Another download is writing {target}.") from None
        # Another one may have ended since, and have put its file in place.
        held = os.fstat(claim)
        if (start and held.st_size != start) or not _is_at(target, held):
            raise NoAnswer("The download begins again.")
    except BaseException:
        os.close(claim)
        raise
    return claim


def _is_at(path: Path, held: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.stat(), held)
    except FileNotFoundError:
        return False


def _extent(response: httpx.Response) -> tuple[int, int]:
    """Where the answer begins in the file, and the file's length, in bytes."""
    if response.status_code == 206:
        if found := CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "")):
            return int(found[1]), int(found[2])
    elif "Content-Length" in response.headers:
        return 0, int(response.headers["Content-Length"])
    raise RegenError("The server does not say how long the file is.")


# The name of an incomplete download holds its ETag, so that any process can go on with it.
def _beside(path: Path, etag: str) -> Path:
    # A weak ETag does not promise the same bytes.
    kept = "" if etag.startswith("W/") else quote(etag, safe="").replace(".", "%2E")
    return path.with_name(f".{_kept_name(path)}.{kept}.part")


def _kept_name(path: Path) -> str:
    """The name, or for a long one what tells it from others: with the ETag it has to fit in a file's name."""
    encoded = os.fsencode(path.name)
    if len(encoded) <= LONGEST_NAME_BYTES:
        return path.name
    return f"{path.name[:20]}~{hashlib.sha256(encoded).hexdigest()[:16]}"


def _etag(rest: Path) -> str:
    return unquote(rest.name.removesuffix(".part").rpartition(".")[2])


def _rest(path: Path) -> Path | None:
    """The newest incomplete download that can be continued."""
    pattern = f".{glob.escape(_kept_name(path))}.%22*.part"
    found = [one for one in path.parent.glob(pattern) if one.stat().st_size]
    return max(found, key=lambda one: one.stat().st_mtime, default=None)
