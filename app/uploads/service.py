"""Uploads in parts: opened, sent part by part past the API if the storage can receive them, then made into a file.

Completing consists of repeatable steps: the storage assembles the object, the API fetches it once to hash and
probe it, and one transaction ends the upload and writes the file's row. Until that commits no answer names
the file; a crash leaves the upload open, to be completed again or to expire.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import partial
from pathlib import Path

from sqlalchemy.orm import Session

from app.accounts import queries as account_queries
from app.accounts.idempotency import AlreadyMade, IdempotentRequest
from app.files.service import SpooledUpload, find_file, new_file
from app.files.tables import File
from app.platform import clock
from app.platform.byte_sizes import GIB, MIB
from app.platform.database import Database, read_clock
from app.platform.errors import (
    Conflict,
    InvalidRequest,
    KeyNotFound,
    LimitExceeded,
    NotFound,
    StorageError,
    TooManyRequests,
)
from app.platform.media.containers import content_type_of_name
from app.platform.media.probe import MediaInfo
from app.platform.secrets import new_id
from app.platform.settings import Settings
from app.platform.storage.contract import Storage, StoredPart
from app.platform.storage.keys import input_key
from app.uploads import queries as upload_queries
from app.uploads.tables import Upload
from app.usage.allowances import Requester, check_file_quota

# Limits of S3 servers.
LEAST_PART_BYTES = 5 * MIB
MOST_PART_BYTES = 5 * GIB
MOST_PARTS = 10_000
# Small enough for a slow connection to send in minutes, large enough to be few.
USUAL_PART_BYTES = 16 * MIB
MOST_FAULTS = 20
RETRY_SECONDS = 60
COPY_BYTES = MIB

ENDED = "This upload has ended."


class UploadStatus(StrEnum):
    """`ended`: aborted, expired, or completed with something that is not a video."""

    OPEN = "open"
    COMPLETED = "completed"
    ENDED = "ended"


@dataclass(frozen=True, kw_only=True)
class PartToSend:
    number: int
    url: str
    size_bytes: int


def status_of(upload: Upload) -> UploadStatus:
    if upload.completed_at is not None:
        return UploadStatus.COMPLETED
    is_over = upload.aborted_at is not None or upload.expires_at <= clock.now()
    return UploadStatus.ENDED if is_over else UploadStatus.OPEN


def part_count(upload: Upload) -> int:
    return -(-upload.size_bytes // upload.part_size_bytes)


def part_size(upload: Upload, number: int) -> int:
    """In bytes: all parts but the last have the same."""
    return min(upload.part_size_bytes, upload.size_bytes - (number - 1) * upload.part_size_bytes)


def open_upload(
    *,
    name: str,
    size_bytes: int,
    part_size_bytes: int | None,
    requester: Requester,
    settings: Settings,
    storage: Storage,
    database: Database,
    idempotent: IdempotentRequest,
) -> Upload:
    """Open an upload, or find what an earlier request with the same key opened.

    Raises LimitExceeded for a size over a limit, InvalidRequest for parts that would be too many, TooManyRequests when
    the user has too many open, NotFound, Conflict and StorageError.
    """
    made = _find_made_upload(database, idempotent)
    if made is not None:
        return made
    chosen = _chosen_part_size(size_bytes, part_size_bytes)
    check_quota = partial(
        _check_quotas, requester=requester, size_bytes=size_bytes, most_open=settings.max_open_uploads
    )
    with database.read() as session:
        check_quota(session, is_made=False)
        now = read_clock(session)
    file_id = new_id()
    key = input_key(file_id)
    multipart_id = storage.open_parts(key, content_type=content_type_of_name(name))
    upload = Upload(
        id=new_id(),
        user_id=requester.id,
        file_id=file_id,
        name=name,
        size_bytes=size_bytes,
        part_size_bytes=chosen,
        multipart_id=multipart_id,
        created_at=now,
        expires_at=now + timedelta(seconds=settings.upload_lifetime_seconds),
    )
    try:
        with database.write() as session:
            # One by one, so that of many at once no more pass than there is room for.
            account_queries.lock_user(session, user_id=requester.id)
            check_quota(session, is_made=True)
            session.add(upload)
            session.flush()
            idempotent.record(session, made_id=upload.id)
    except BaseException as error:
        storage.abort_parts(key, multipart_id)
        if not isinstance(error, AlreadyMade):
            raise
        made = _find_made_upload(database, idempotent)
        assert made is not None
        return made
    return upload


def _find_made_upload(database: Database, idempotent: IdempotentRequest) -> Upload | None:
    with database.read() as session:
        made_id = idempotent.lookup(session)
        if made_id is None:
            return None
        return find_upload(session, upload_id=made_id, user_id=idempotent.user_id)


def _check_quotas(
    session: Session, *, requester: Requester, size_bytes: int, most_open: int, is_made: bool
) -> None:
    check_file_quota(session, requester, size_bytes=size_bytes, is_made=is_made)
    if upload_queries.count_open(session, user_id=requester.id, moment=clock.now()) >= most_open:
        raise TooManyRequests(
            f"You have {most_open} uploads open, which is the maximum. Complete or abort one.",
            retry_after_seconds=RETRY_SECONDS,
        )


def find_upload(session: Session, *, upload_id: str, user_id: str) -> Upload:
    """Raises NotFound for an unknown upload and another user's."""
    upload = upload_queries.find_upload(session, upload_id=upload_id, user_id=user_id)
    if upload is None:
        raise NotFound("Upload not found")
    return upload


def require_open(upload: Upload) -> None:
    """Raises Conflict."""
    match status_of(upload):
        case UploadStatus.COMPLETED:
            raise Conflict("This upload is completed.")
        case UploadStatus.ENDED:
            raise Conflict(ENDED)


def parts_to_send(
    upload: Upload, *, after: int, limit: int, storage: Storage, base_url: str
) -> Sequence[PartToSend]:
    """The parts whose numbers follow `after`, with URLs that are valid as long as the upload is open."""
    left_seconds = max(1, int((upload.expires_at - clock.now()).total_seconds()))
    numbers = range(after + 1, min(after + limit, part_count(upload)) + 1)
    return [
        PartToSend(
            number=number,
            size_bytes=part_size(upload, number),
            url=storage.signed_part_url(
                input_key(upload.file_id),
                upload.multipart_id,
                number=number,
                size_bytes=part_size(upload, number),
                base_url=base_url,
                lifetime_seconds=left_seconds,
            ),
        )
        for number in numbers
    ]


def received_parts(upload: Upload, storage: Storage) -> Sequence[StoredPart]:
    """The received parts of an upload, by number; none once they were assembled.

    Leaves out a part that was sent with different bytes if the storage does not report which came last.
    """
    try:
        listed = storage.list_parts(input_key(upload.file_id), upload.multipart_id)
    except KeyNotFound:
        return []
    by_number: dict[int, set[StoredPart]] = {}
    for part in listed:
        by_number.setdefault(part.number, set()).add(part)
    return [parts.pop() for _number, parts in sorted(by_number.items()) if len(parts) == 1]


def abort_upload(database: Database, storage: Storage, *, upload_id: str, user_id: str) -> None:
    """End the upload and free its parts; a crash in between leaves them to the clean-up.

    Raises NotFound, Conflict for one that was completed, and StorageError.
    """
    with database.write() as session:
        upload = find_upload(session, upload_id=upload_id, user_id=user_id)
        if upload.completed_at is not None:
            raise Conflict("This upload is completed: delete its file instead.")
        upload_queries.note_aborted(session, upload_id=upload_id, moment=read_clock(session))
    free_storage(storage, file_id=upload.file_id, multipart_id=upload.multipart_id)
    with database.write() as session:
        upload_queries.note_cleaned(session, upload_id)


def free_storage(storage: Storage, *, file_id: str, multipart_id: str) -> None:
    """Remove the parts and the object of an upload that will not become a file."""
    storage.abort_parts(input_key(file_id), multipart_id)
    storage.delete(input_key(file_id))


def put_together(upload: Upload, given: Mapping[int, str], storage: Storage) -> None:
    """Make the storage assemble the object from the parts, unless it was done before.

    `given` are the ETags by part number. Raises InvalidRequest with one message per fault, Conflict when the upload has
    ended, and StorageError.
    """
    key = input_key(upload.file_id)
    try:
        received = storage.list_parts(key, upload.multipart_id)
    except KeyNotFound:
        if not _is_together(upload, storage):
            raise Conflict(ENDED) from None
        return
    chosen = _chosen_parts(upload, given, received)
    try:
        storage.complete_parts(key, upload.multipart_id, chosen)
    except StorageError:
        # Another request was faster, or the answer was lost.
        if not _is_together(upload, storage):
            raise


def fetch_upload(upload: Upload, storage: Storage, path: Path) -> SpooledUpload:
    """Fetch the object to the new file `path`, and hash it. Raises StorageError."""
    storage.fetch(input_key(upload.file_id), path)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(COPY_BYTES):
            digest.update(block)
    return SpooledUpload(
        path=path, name=upload.name, size_bytes=path.stat().st_size, sha256=digest.hexdigest()
    )


def make_file(upload: Upload, spooled: SpooledUpload, info: MediaInfo, database: Database) -> File:
    """End the upload and write the row of its probed file.

    Only one of several concurrent calls does so. Raises Conflict if the upload was aborted in the meantime,
    and NotFound if the file was removed since.
    """
    with database.write() as session:
        now = read_clock(session)
        if upload_queries.note_completed(session, upload_id=upload.id, moment=now):
            file = new_file(
                spooled, file_id=upload.file_id, user_id=upload.user_id, info=info, created_at=now
            )
            session.add(file)
            return file
    with database.read() as session:
        if find_upload(session, upload_id=upload.id, user_id=upload.user_id).completed_at is None:
            raise Conflict(ENDED)
        return find_file(session, file_id=upload.file_id, user_id=upload.user_id)


def give_up(upload: Upload, database: Database, storage: Storage) -> None:
    """End an upload that was refused, unless it is already a file, and free its storage."""
    with database.write() as session:
        upload_queries.note_aborted(session, upload_id=upload.id, moment=read_clock(session))
    with database.read() as session:
        if find_upload(session, upload_id=upload.id, user_id=upload.user_id).completed_at is not None:
            return
    free_storage(storage, file_id=upload.file_id, multipart_id=upload.multipart_id)
    with database.write() as session:
        upload_queries.note_cleaned(session, upload.id)


def _chosen_part_size(size_bytes: int, wanted: int | None) -> int:
    if wanted is None:
        # In whole MiB, and few enough.
        needed = -(-size_bytes // MOST_PARTS)
        wanted = max(USUAL_PART_BYTES, -(-needed // MIB) * MIB)
        if wanted > MOST_PART_BYTES:
            raise LimitExceeded(
                f"An upload has {MOST_PARTS:,} parts of {MOST_PART_BYTES // GIB} GiB at most."
            )
    elif -(-size_bytes // wanted) > MOST_PARTS:
        raise InvalidRequest(f"With this `part_size_bytes` there would be more than {MOST_PARTS:,} parts.")
    return wanted


def _is_together(upload: Upload, storage: Storage) -> bool:
    try:
        return storage.stat(input_key(upload.file_id)).size_bytes == upload.size_bytes
    except KeyNotFound:
        return False


def _chosen_parts(
    upload: Upload, given: Mapping[int, str], received: Sequence[StoredPart]
) -> Sequence[StoredPart]:
    """The received parts with the given ETags, by number. Raises InvalidRequest with one message per fault."""
    count = part_count(upload)
    faults = [f"There is no part {number} in this upload of {count:,}." for number in given if number > count]
    found = {(part.number, part.etag): part for part in received}
    numbers = {part.number for part in received}
    chosen = []
    for number in range(1, count + 1):
        part = found.get((number, given.get(number, "").strip('"')))
        if number not in numbers:
            faults.append(f"Part {number} has not arrived.")
        elif number not in given:
            faults.append(f"Part {number} is not among `parts`.")
        elif part is None:
            faults.append(f"The ETag of part {number} is not that of the received part.")
        elif part.size_bytes != part_size(upload, number):
            faults.append(
                f"Part {number} has {part.size_bytes:,} bytes; {part_size(upload, number):,} are needed."
            )
        else:
            chosen.append(part)
    if len(faults) > MOST_FAULTS:
        faults = [*faults[:MOST_FAULTS], f"There are {len(faults) - MOST_FAULTS:,} more such faults."]
    if faults:
        raise InvalidRequest(*faults)
    return chosen
