"""The video of a request, received with it or fetched from a URL, and probed."""

import hashlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial
from http import HTTPStatus
from pathlib import Path

import anyio
import httpx
from anyio import to_thread

from app.accounts.idempotency import IdempotentRequest
from app.files.service import SpooledUpload, inspect_upload
from app.http.access import CurrentUser
from app.http.multipart import FILE_FIELD, ReceivedForm, file_too_large, room_on_disk
from app.http.resources import Resources
from app.http.shared_slots import ClientConnection
from app.http.spool_space import Reservation, UploadRoom, new_spool_path
from app.platform.byte_sizes import MIB
from app.platform.errors import InvalidRequest, OutboundError
from app.platform.file_names import disposition_parameters, safe_name
from app.platform.media.limits import MediaLimits
from app.platform.media.probe import MediaInfo
from app.platform.outbound import check_url, followed, guarded_client
from app.platform.quoting import quoted
from app.platform.settings import Settings

FILE_URL_FIELD = "file_url"


def source_faults(form: ReceivedForm, names: Sequence[str], settings: Settings) -> list[str]:
    """A sentence unless exactly one of the fields `names`, which say where the video comes from, is given; the faults
    of a `file_url` that are known without fetching it."""
    sources = {name: form.upload if name == FILE_FIELD else form.fields.get(name) for name in names}
    given = [name for name, source in sources.items() if source is not None or name in form.faults]
    if len(given) != 1:
        named = " and ".join(_shown_source(name, sources[name]) for name in given) or "none"
        listed = [f"`{name}`" for name in names]
        return [f"Exactly one of {', '.join(listed[:-1])} and {listed[-1]} is needed; given: {named}."]
    url = form.fields.get(FILE_URL_FIELD)
    return [] if url is None else url_faults(url, settings)


def _shown_source(name: str, source: object) -> str:
    return f"`{name}` {quoted(source)}" if isinstance(source, str) else f"`{name}`"


def url_faults(url: str, settings: Settings) -> list[str]:
    """Why a `file_url` cannot be taken, as far as that is known without fetching it."""
    if not settings.allow_file_urls:
        return [f"`{FILE_URL_FIELD}` is not allowed on this server: upload the video instead."]
    try:
        check_url(url)
    except OutboundError as error:
        return [f"`{FILE_URL_FIELD}` cannot be fetched. {error.message}"]
    return []


async def inspect_video(
    upload: SpooledUpload,
    *,
    limits: MediaLimits,
    user: CurrentUser,
    resources: Resources,
    connection: ClientConnection | None,
) -> MediaInfo:
    """Probe the video in one of the slots that users share. Without `connection` it continues when the client
    disconnects.

    Raises what `inspect_upload` and `SharedSlots.slot` raise, FfmpegError, and ClientDisconnect.
    """
    slots = resources.probe_slots
    async with slots.slot(user.id):
        runner = resources.runner.within_one_limit()
        inspect = partial(inspect_upload, upload, runner=runner, limits=limits)
        if connection is None:
            return await to_thread.run_sync(inspect, limiter=slots.threads)
        return await connection.run(inspect, stop=runner.stop, threads=slots.threads)


def _room(user: CurrentUser, resources: Resources, *, is_kept: bool) -> UploadRoom:
    return UploadRoom(
        requester=user, space=resources.spool_space, database=resources.database, is_kept=is_kept
    )


@asynccontextmanager
async def accept_video(
    upload: SpooledUpload | None,
    file_url: str | None,
    *,
    connection: ClientConnection,
    user: CurrentUser,
    resources: Resources,
    is_kept: bool,
) -> AsyncIterator[SpooledUpload]:
    """The request's upload or, when there is none, the video at the URL, whose spool file is removed on exit.

    `is_kept`: whether the video becomes a file. Raises InvalidRequest if it cannot be fetched, LimitExceeded if it is
    too large or exceeds the user's storage, Unavailable, and ClientDisconnect when the client disconnects.
    """
    if upload is not None:
        yield upload
        return
    assert file_url is not None
    path = new_spool_path(resources.settings.spool_dir)
    cancelled = threading.Event()
    upload_room = _room(user, resources, is_kept=is_kept)
    fetch = partial(
        _fetch,
        file_url,
        path,
        max_bytes=user.allowance.max_upload_bytes,
        reserved=lambda size_bytes: resources.spool_space.reserved(size_bytes, share=upload_room.share()),
        make_client=partial(
            guarded_client,
            allowed_networks=resources.settings.outbound_allowed_networks,
            cancelled=cancelled.is_set,
        ),
        total_seconds=resources.settings.fetch_timeout_seconds,
        cancelled=cancelled,
    )
    try:
        async with resources.fetch_slots.slot(user.id):
            fetched = await connection.run(fetch, stop=cancelled.set, threads=resources.fetch_slots.threads)
        async with upload_room.reserved(0) as room:
            resources.spool_space.hold(room, fetched.size_bytes)
            yield fetched
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(partial(path.unlink, missing_ok=True))


@asynccontextmanager
async def accept_new_video(
    upload: SpooledUpload | None,
    file_url: str | None,
    *,
    connection: ClientConnection,
    user: CurrentUser,
    resources: Resources,
    idempotent: IdempotentRequest,
) -> AsyncIterator[tuple[SpooledUpload, MediaInfo]]:
    """The video of a request that makes a file of it, probed. Raises as `accept_video` and `inspect_video` do; before
    it waits for a slot LimitExceeded if the user's storage has no room for it."""
    async with accept_video(
        upload, file_url, connection=connection, user=user, resources=resources, is_kept=True
    ) as accepted:
        room = _room(user, resources, is_kept=True)
        async with room.examined(accepted.size_bytes, key=idempotent.key):
            info = await inspect_video(
                accepted, limits=user.allowance.media, user=user, resources=resources, connection=connection
            )
        yield accepted, info


def _fetch(
    url: str,
    path: Path,
    *,
    max_bytes: int,
    reserved: Callable[[int | None], AbstractContextManager[Reservation]],
    make_client: Callable[..., httpx.Client],
    total_seconds: float,
    cancelled: threading.Event,
) -> SpooledUpload:
    digest, size_bytes = hashlib.sha256(), 0
    ends_at = time.monotonic() + total_seconds

    def make_hop() -> httpx.Client:
        return make_client(total_seconds=ends_at - time.monotonic())

    # Uncompressed: a small body that unpacks to a large one is not a video file.
    headers = {"Accept": "video/*, */*", "Accept-Encoding": "identity"}
    try:
        with (
            room_on_disk(),
            followed(url, make_client=make_hop, headers=headers) as answer,
            reserved(_size(answer, max_bytes)) as room,
            path.open("xb", buffering=MIB) as file,
        ):
            path.chmod(0o600)
            for block in answer.iter_raw():
                if cancelled.is_set():
                    raise OutboundError("The fetch was canceled.")
                size_bytes += len(block)
                if size_bytes > max_bytes:
                    raise file_too_large(max_bytes)
                digest.update(block)
                room.wrote(len(block))
                file.write(block)
            name = _name(url, answer)
    except OutboundError as error:
        raise InvalidRequest(
            f"`{FILE_URL_FIELD}` cannot be fetched. {error.message}", detail=error.detail
        ) from error
    return SpooledUpload(path=path, name=name, size_bytes=size_bytes, sha256=digest.hexdigest())


def _size(answer: httpx.Response, max_bytes: int) -> int | None:
    """The size that the answer announces, if any. Raises OutboundError if it is not a file, LimitExceeded if
    it is too large."""
    if answer.status_code != HTTPStatus.OK:
        raise OutboundError(f"The other server answers with the status {answer.status_code}.")
    if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise OutboundError("The other server sends the video compressed, although it was asked not to.")
    length = answer.headers.get("Content-Length", "")
    size_bytes = int(length) if length.isascii() and length.isdigit() else None
    if (size_bytes or 0) > max_bytes:
        raise file_too_large(max_bytes)
    return size_bytes


def _name(url: str, answer: httpx.Response) -> str:
    """The file name that the other server gives, otherwise the end of the URL's path."""
    try:
        given = disposition_parameters(
            answer.headers.get("Content-Disposition", "").encode("latin-1", "replace")
        )
    except ValueError:
        given = {}
    return safe_name(given.get("filename") or httpx.URL(url).path)
