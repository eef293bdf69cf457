"""The space for a user's upload: on the disk, and within the user's storage limit."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from anyio import to_thread

from app.http.access import CurrentUser
from app.http.resources import Resources
from app.http.spool_space import Reservation, Share
from app.usage.allowances import check_file_quota, most_stored, stored_now


@dataclass(frozen=True, kw_only=True)
class UploadRoom:
    """The space of one request's upload.

    `is_kept`: whether the upload becomes a file. `may_be_repeated`: whether the request may repeat an earlier
    one that has already made the file.
    """

    user: CurrentUser
    resources: Resources
    is_kept: bool
    may_be_repeated: bool = False

    @asynccontextmanager
    async def reserved(self, size_bytes: int | None) -> AsyncIterator[Reservation]:
        """Reserve space for an upload of that size, if known. Raises Unavailable and LimitExceeded."""
        space = self.resources.spool_space
        room = await to_thread.run_sync(lambda: space.reserve(size_bytes, share=self.share()))
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
        share = Share(user_id=self.user.id, most_bytes=left_bytes)
        with self.resources.spool_space.examined(size_bytes, share=share, key=key):
            yield

    def _left_bytes(self, size_bytes: int) -> int | None:
        with self.resources.database.read() as session:
            return check_file_quota(
                session,
                user_id=self.user.id,
                api_key_id=self.user.key_id,
                allowance=self.user.allowance,
                size_bytes=size_bytes,
                is_made=False,
            )

    def share(self) -> Share | None:
        """The bytes that the user's storage limit leaves for uploads in progress; None without a limit.

        For an upload that is not kept, or may be stored already, stored bytes do not count.
        """
        most = most_stored(self.user.allowance, self.user.key_id)
        if most is None:
            return None
        if not self.is_kept:
            most = max(most, self.user.allowance.max_upload_bytes)
        elif not self.may_be_repeated:
            with self.resources.database.read() as session:
                most = max(0, most - stored_now(session, user_id=self.user.id))
        return Share(user_id=self.user.id, most_bytes=most)
