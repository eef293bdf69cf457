"""Files: a spooled upload is probed within limits, stored, and recorded as a row."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from pathlib import Path

from sqlalchemy.orm import Session

from app.accounts.idempotency import AlreadyMade, IdempotentRequest
from app.files import queries as file_queries
from app.files.tables import File
from app.platform.database import Database, read_clock
from app.platform.errors import Conflict, InvalidRequest, NotFound
from app.platform.media.containers import content_type_of_format
from app.platform.media.ffmpeg import FfmpegRunner
from app.platform.media.limits import MediaLimits, check_output
from app.platform.media.probe import MediaInfo, probe_video
from app.platform.media.rates import MIN_FPS
from app.platform.secrets import new_id
from app.platform.storage.contract import Storage
from app.platform.storage.keys import input_key
from app.usage.allowances import Requester, check_file_quota
from models.catalog import SCALE


@dataclass(frozen=True, kw_only=True)
class SpooledUpload:
    """A complete upload in a file on this machine's disk. `sha256` is in hexadecimal."""

    path: Path
    name: str
    size_bytes: int
    sha256: str


def inspect_upload(upload: SpooledUpload, *, runner: FfmpegRunner, limits: MediaLimits) -> MediaInfo:
    """Raises InvalidRequest (empty), NotAVideo or LimitExceeded. Touches neither storage nor database."""
    if upload.size_bytes == 0:
        raise InvalidRequest("The uploaded file is empty.")
    return probe_video(runner, upload.path, limits=limits)


def check_usable(info: MediaInfo, limits: MediaLimits) -> None:
    """Raises LimitExceeded for a video whose least demanding render would be over a limit."""
    check_output(info.video, scale=SCALE, target_fps=Fraction(MIN_FPS), limits=limits)


def create_file(
    upload: SpooledUpload,
    *,
    info: MediaInfo,
    requester: Requester,
    storage: Storage,
    database: Database,
    idempotent: IdempotentRequest,
) -> File:
    """Store the upload as a file. Raises LimitExceeded and StorageError."""
    check_usable(info, requester.allowance.media)
    try:
        with stored_upload(upload, info=info, requester=requester, storage=storage, database=database) as (
            session,
            file,
        ):
            idempotent.record(session, made_id=file.id)
            return file
    except AlreadyMade:
        made = find_made_file(database, idempotent)
        assert made is not None
        return made


def find_made_file(database: Database, idempotent: IdempotentRequest) -> File | None:
    """The result of an earlier request with the same key. Raises NotFound if it was removed since, and Conflict."""
    with database.read() as session:
        made_id = idempotent.lookup(session)
        return None if made_id is None else find_file(session, file_id=made_id, user_id=idempotent.user_id)


@contextmanager
def stored_upload(
    upload: SpooledUpload, *, info: MediaInfo, requester: Requester, storage: Storage, database: Database
) -> Iterator[tuple[Session, File]]:
    """Store the upload, then open a unit of work with its new file's row: the caller's additions are
    committed with it. Unless it commits, the stored object is removed again. Raises LimitExceeded if it
    exceeds the allowance, usually before anything is stored, and StorageError.
    """
    with database.read() as session:
        check_file_quota(session, requester, size_bytes=upload.size_bytes, is_made=False)
        now = read_clock(session)
    file = new_file(upload, file_id=new_id(), user_id=requester.id, info=info, created_at=now)
    storage.put_file(file.storage_key, upload.path, content_type=file.content_type)
    try:
        with database.write() as session:
            check_file_quota(session, requester, size_bytes=upload.size_bytes)
            session.add(file)
            session.flush()
            yield session, file
    except BaseException:
        storage.delete(file.storage_key)
        raise


def new_file(
    upload: SpooledUpload, *, file_id: str, user_id: str, info: MediaInfo, created_at: datetime
) -> File:
    """The row of a probed upload; its object's key derives from `file_id`."""
    return File(
        id=file_id,
        user_id=user_id,
        name=upload.name,
        content_type=content_type_of_format(info.format_name, name=upload.name),
        size_bytes=upload.size_bytes,
        sha256=upload.sha256,
        storage_key=input_key(file_id),
        video=info.video,
        video_begins_at=info.video_begins_at,
        codec=info.video.codec,
        pix_fmt=info.video.pix_fmt,
        transfer=info.video.colour.transfer and info.video.colour.transfer.label,
        sound=[stream.codec or "unknown" for stream in info.others if stream.kind == "audio"],
        created_at=created_at,
    )


def find_file(session: Session, *, file_id: str, user_id: str) -> File:
    """Raises NotFound for an unknown file, another user's, and one that was removed."""
    return _found(file_queries.find_file(session, file_id=file_id, user_id=user_id))


def delete_file(database: Database, storage: Storage, *, file_id: str, user_id: str) -> None:
    """Remove the user's file: first from every answer, then its bytes. Its renders keep their results.

    A crash in between leaves the bytes to the clean-up. Raises NotFound for an unknown file and another user's,
    Conflict while a render or preview needs it, StorageError when the bytes cannot be removed.
    """
    with database.write() as session:
        file = find_file(session, file_id=file_id, user_id=user_id)
        if not file_queries.withdraw_file(session, file.id):
            raise Conflict(
                "A render or preview that has not ended needs this file: wait for it, or cancel it."
            )
    storage.delete(file.storage_key)
    with database.write() as session:
        file_queries.note_file_erased(session, file.id)


def find_file_to_use(session: Session, *, file_id: str, user_id: str) -> File:
    """As `find_file`, for creating a render of it: the file is not removed before the session ends."""
    return _found(file_queries.find_file_to_use(session, file_id=file_id, user_id=user_id))


def _found(file: File | None) -> File:
    if file is None:
        raise NotFound("File not found")
    return file
