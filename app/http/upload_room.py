"""The space for a user's upload: on the disk, and within the user's storage limit."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from anyio import to_thread

from app.http.access import CurrentUser
from app.http.resources import Resources
from app.http.spool_space import Reservation, Share
from app.usage.allowances import most_stored, stored_now


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
