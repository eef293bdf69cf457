"""Completes an upload in parts: assembles the object, fetches it to be hashed and probed, and records the file."""

import asyncio
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from weakref import WeakValueDictionary

import anyio
import structlog
from anyio import to_thread

from app.files.accept_video import inspect_video
from app.files.service import SpooledUpload, check_usable, find_file
from app.files.tables import File
from app.http.access import CurrentUser
from app.http.resources import Resources
from app.http.spool_space import new_spool_path
from app.platform.errors import LimitExceeded, NotAVideo, StorageError
from app.uploads import service as uploads
from app.uploads.service import UploadStatus
from app.uploads.tables import Upload

log = structlog.get_logger(__name__)

_locks: WeakValueDictionary[tuple[int, str], asyncio.Lock] = WeakValueDictionary()


async def complete(
    upload_id: str, given: Mapping[int, str], *, user: CurrentUser, resources: Resources
) -> File:
    """The file of the user's upload, whose parts have these ETags.

    Raises NotFound, Conflict when the upload has ended, InvalidRequest for parts that differ from the request,
    NotAVideo and LimitExceeded for a refused video (then the upload has ended), StorageError and Unavailable.
    """
    # A client whose connection broke repeats its request while the first still runs: the second waits for it.
    async with _completion_lock(upload_id), resources.fetch_slots.slot(user.id):
        path = new_spool_path(resources.settings.spool_dir)
        try:
            return await _complete(upload_id, given, path=path, user=user, resources=resources)
        finally:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(partial(path.unlink, missing_ok=True))


async def _complete(
    upload_id: str, given: Mapping[int, str], *, path: Path, user: CurrentUser, resources: Resources
) -> File:
    fetch = partial(_fetch, upload_id, given, path=path, user_id=user.id, resources=resources)
    fetched = await to_thread.run_sync(fetch, limiter=resources.fetch_slots.threads)
    if isinstance(fetched, File):
        return fetched
    upload, spooled = fetched
    limits = user.allowance.media
    try:
        info = await inspect_video(spooled, limits=limits, user=user, resources=resources, connection=None)
        check_usable(info, limits)
    except (LimitExceeded, NotAVideo) as error:
        await to_thread.run_sync(_refuse, upload, error.message, resources)
        raise
    file = await to_thread.run_sync(uploads.make_file, upload, spooled, info, resources.database)
    log.info("upload_completed", upload_id=upload.id, file_id=file.id, size_bytes=file.size_bytes)
    return file


def _fetch(
    upload_id: str, given: Mapping[int, str], *, path: Path, user_id: str, resources: Resources
) -> tuple[Upload, SpooledUpload] | File:
    """The upload with the object assembled from its parts; its file if that was made before."""
    with resources.database.read() as session:
        upload = uploads.find_upload(session, upload_id=upload_id, user_id=user_id)
        if uploads.status_of(upload) is UploadStatus.COMPLETED:
            return find_file(session, file_id=upload.file_id, user_id=user_id)
    uploads.require_open(upload)
    uploads.put_together(upload, given, resources.storage)
    return upload, uploads.fetch_upload(upload, resources.storage, path)


def _refuse(upload: Upload, reason: str, resources: Resources) -> None:
    log.info("upload_refused", upload_id=upload.id, reason=reason)
    try:
        uploads.give_up(upload, resources.database, resources.storage)
    except StorageError as error:  # the clean-up does it later
        log.warning("files_not_removed", id=upload.id, error=error.message, detail=error.detail)


def _completion_lock(upload_id: str) -> asyncio.Lock:
    """Held by one request at a time of this process. Another process may do the same work, to the same result."""
    key = (id(asyncio.get_running_loop()), upload_id)
    lock = _locks.get(key)
    if lock is None:
        lock = _locks[key] = asyncio.Lock()
    return lock
