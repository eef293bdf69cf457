"""The space for uploads, reserved before their bytes are sent: on the spool directory's disk, and within a user's
storage limit."""

import secrets
import shutil
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from anyio import to_thread

from app.http.neighbours import Neighbours, State
from app.platform.byte_sizes import MIB
from app.platform.database import Database
from app.platform.errors import LimitExceeded, Unavailable
from app.usage.allowances import Requester, check_file_quota, most_stored, stored_now

RETRY_SECONDS = 60
# Reserved at a time for a body of unknown length.
STEP_BYTES = 64 * MIB
# The other content of a form, which no storage limit counts.
FORM_BYTES = MIB
SPOOL_PREFIX = "upload-"


def new_spool_path(directory: Path) -> Path:
    """The path of a new file, which is removed if a crash leaves it behind."""
    return directory / f"{SPOOL_PREFIX}{secrets.token_hex(16)}"


@dataclass(frozen=True, kw_only=True)
class Share:
    """The total space of one user's uploads in progress."""

    user_id: str
    most_bytes: int


class Receiver(Protocol):
    """Writes the blocks of a body to the directory's disk."""

    def feed(self, data: bytes, /) -> None: ...


class Reservation:
    """One upload's space, until it is released.

    Call `wrote` with the size of every block before writing it. `left_bytes` are reserved but not written;
    `held_bytes` are the announced or the written ones, whichever are more.
    """

    def __init__(self, space: "SpoolSpace", share: Share | None, announced_bytes: int) -> None:
        self._space = space
        self.share = share
        self.left_bytes = 0
        self.held_bytes = announced_bytes
        self._written_bytes = 0
        self._told_bytes = 0

    def wrote(self, size_bytes: int) -> None:
        """For threads: it may query the disk. Raises Unavailable if more than the reserved space is written
        and the disk is full, LimitExceeded if it exceeds the share."""
        self._written_bytes += size_bytes
        if self._written_bytes > self.held_bytes:
            self._space.hold(self, self._written_bytes)
        if size_bytes > self.left_bytes:
            self._space.grow(self, max(size_bytes, STEP_BYTES))
        self.left_bytes -= size_bytes
        if self._written_bytes - self._told_bytes >= STEP_BYTES:
            self._told_bytes = self._written_bytes
            self._space.tell()

    def pass_on(self, block: bytes, receiver: Receiver) -> None:
        """Give the receiver a block that it writes here. Raises what `wrote` and the receiver do."""
        self.wrote(len(block))
        receiver.feed(block)

    def release(self) -> None:
        self._space.forget(self)


class SpoolSpace:
    """The free space of one directory's disk, of which `keep_free_bytes` are never reserved. For any thread.

    Other API processes of the server reserve from the same space.
    """

    def __init__(
        self, directory: Path, *, keep_free_bytes: int, neighbours: Neighbours | None = None
    ) -> None:
        self._neighbours = neighbours or Neighbours("spool")
        self.directory = directory
        self._keep_free_bytes = keep_free_bytes
        self._reservations: set[Reservation] = set()
        # Of each received upload that is not examined yet: its user, what identifies it, and its size in bytes.
        self._received: list[tuple[str, str, int]] = []
        self._lock = threading.Lock()

    def reserve(self, size_bytes: int | None, *, share: Share | None = None) -> Reservation:
        """Reserve space for so many bytes, or, if None, for an unknown number.

        For threads: it queries the disk. Raises Unavailable, and LimitExceeded above the share.
        """
        reservation = Reservation(self, share, 0)
        try:
            self.hold(reservation, size_bytes or 0)
            self.grow(reservation, STEP_BYTES if size_bytes is None else size_bytes)
        except BaseException:
            reservation.release()
            raise
        return reservation

    @property
    def free_bytes(self) -> int:
        """Bytes of the disk that uploads may take, reserved or not; 0 if it is full."""
        return max(0, shutil.disk_usage(self.directory).free - self._keep_free_bytes)

    @property
    def has_room(self) -> bool:
        """Whether the disk is not full. Reserved space does not count: it may never be used."""
        return self.free_bytes > 0

    @contextmanager
    def reserved(self, size_bytes: int | None, *, share: Share | None = None) -> Iterator[Reservation]:
        """As `reserve`, released on exit."""
        reservation = self.reserve(size_bytes, share=share)
        try:
            yield reservation
        finally:
            reservation.release()

    def hold(self, reservation: Reservation, held_bytes: int) -> None:
        """Raises LimitExceeded."""
        share = reservation.share
        with self._together() as others:
            if share is not None:
                held = self._held(but=reservation)[share.user_id]
                held += sum(one["held"].get(share.user_id, 0) for one in others)
                if held + held_bytes > share.most_bytes + FORM_BYTES:
                    raise _exceeds(share)
            reservation.held_bytes = held_bytes
            self._reservations.add(reservation)

    @contextmanager
    def examined(self, size_bytes: int, *, share: Share, key: str | None) -> Iterator[None]:
        """Counts a received upload's exact size against the share until the caller has examined it.

        Uploads still being received do not count: what they announce includes their forms. Those with the same
        Idempotency-Key count once. Raises LimitExceeded if the sum exceeds the share.
        """
        one = (share.user_id, key or secrets.token_hex(8), size_bytes)
        with self._together() as others:
            received = (
                *(tuple(other) for some in others for other in some["received"]),
                *self._received,
                one,
            )
            sizes = {identity: size for user_id, identity, size in received if user_id == share.user_id}
            if sum(sizes.values()) > share.most_bytes:
                raise _exceeds(share)
            self._received.append(one)
        try:
            yield
        finally:
            with self._together():
                self._received.remove(one)

    def grow(self, reservation: Reservation, more_bytes: int) -> None:
        """Raises Unavailable."""
        with self._together() as others:
            taken_bytes = self._keep_free_bytes + sum(one.left_bytes for one in self._reservations)
            taken_bytes += sum(one["left"] for one in others)
            free_bytes = shutil.disk_usage(self.directory).free
            if taken_bytes + more_bytes > free_bytes:
                raise no_room(f"{more_bytes} bytes more, with {taken_bytes} of {free_bytes} free ones taken")
            reservation.left_bytes += more_bytes

    def forget(self, reservation: Reservation) -> None:
        with self._together():
            self._reservations.discard(reservation)

    def tell(self) -> None:
        """Tell the other processes how much of the reserved space is written."""
        with self._together():
            pass

    @contextmanager
    def _together(self) -> Iterator[Sequence[State]]:
        """What the other processes have in hand, while no thread of any process changes it."""
        with self._lock, self._neighbours.exclusively() as others:
            yield others
            self._neighbours.tell(
                {
                    "left": sum(one.left_bytes for one in self._reservations),
                    "held": self._held(),
                    "received": self._received,
                }
            )

    def _held(self, *, but: Reservation | None = None) -> Counter[str]:
        """The bytes of each user's uploads in this process."""
        held: Counter[str] = Counter()
        for one in self._reservations:
            if one.share is not None and one is not but:
                held[one.share.user_id] += one.held_bytes
        return held


def _exceeds(share: Share) -> LimitExceeded:
    return LimitExceeded(
        f"With this upload, your uploads in progress would exceed the {share.most_bytes:,} bytes that your storage "
        "limit leaves. Try again when they have ended, or delete files and renders that you no longer need."
    )


def no_room(detail: str) -> Unavailable:
    return Unavailable(
        "There is no room for uploads just now. Try again later.",
        retry_after_seconds=RETRY_SECONDS,
        detail=detail,
    )


@dataclass(frozen=True, kw_only=True)
class UploadRoom:
    """The space of one request's upload.

    `is_kept`: whether the upload becomes a file. `may_be_repeated`: whether the request may repeat an earlier
    one that has already made the file.
    """

    requester: Requester
    space: SpoolSpace
    database: Database
    is_kept: bool
    may_be_repeated: bool = False

    @asynccontextmanager
    async def reserved(self, size_bytes: int | None) -> AsyncIterator[Reservation]:
        """Reserve space for an upload of that size, if known. Raises Unavailable and LimitExceeded."""
        room = await to_thread.run_sync(lambda: self.space.reserve(size_bytes, share=self.share()))
        try:
            yield room
        finally:
            room.release()

    @asynccontextmanager
    async def examined(self, size_bytes: int, *, key: str | None) -> AsyncIterator[None]:
        """Counts a received upload that is kept until the caller has examined it; `key` is its Idempotency-Key.

        Raises LimitExceeded if the storage limit has no room for it beside the user's other received ones. Other API
        processes do not count these: the transaction that makes the file decides.
        """
        left_bytes = await to_thread.run_sync(partial(self._left_bytes, size_bytes))
        if left_bytes is None:
            yield
            return
        # Counted after the query, and no longer once the file is being made: no upload counts twice.
        share = Share(user_id=self.requester.id, most_bytes=left_bytes)
        with self.space.examined(size_bytes, share=share, key=key):
            yield

    def _left_bytes(self, size_bytes: int) -> int | None:
        with self.database.read() as session:
            return check_file_quota(session, self.requester, size_bytes=size_bytes, is_made=False)

    def share(self) -> Share | None:
        """The bytes that the user's storage limit leaves for uploads in progress; None without a limit.

        For an upload that is not kept, or may be stored already, stored bytes do not count.
        """
        most = most_stored(self.requester)
        if most is None:
            return None
        if not self.is_kept:
            most = max(most, self.requester.allowance.max_upload_bytes)
        elif not self.may_be_repeated:
            with self.database.read() as session:
                most = max(0, most - stored_now(session, user_id=self.requester.id))
        return Share(user_id=self.requester.id, most_bytes=most)
