"""The room that a user's upload takes: of the disk, and of what they may store."""

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
    """Where one request's upload finds its room.

    `is_kept`: whether a file comes of it. `may_be_repeated`: whether the request may be an earlier one once more, which
    has made that file.
    """

    user: CurrentUser
    resources: Resources
    is_kept: bool
    may_be_repeated: bool = False

    @asynccontextmanager
    async def reserved(self, size_bytes: int | None) -> AsyncIterator[Reservation]:
        """Room for an upload of that size, as far as it is known. Raises Unavailable, and LimitExceeded."""
        space = self.resources.spool_space
        room = await to_thread.run_sync(lambda: space.reserve(size_bytes, share=self.share()))
        try:
            yield room
        finally:
            room.release()

    def share(self) -> Share | None:
        """What the user's uploads on their way may hold: what their limit of storage leaves; None without one.

        An upload that is not kept, and one that may have been stored already, are not held against what is stored.
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
