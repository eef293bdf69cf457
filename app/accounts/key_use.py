"""Records the last use of API keys, and looks at refused ones, in the background: no request waits for it or fails with
it.
"""

import asyncio
import time
from datetime import datetime, timedelta

import structlog
from anyio import CapacityLimiter, to_thread
from sqlalchemy.exc import SQLAlchemyError

from app.accounts import queries as account_queries
from app.accounts.service import hint_of
from app.platform import clock
from app.platform.database import Database
from app.platform.errors import RegenError

# The minimum time between two writes for one key.
NOTED_EVERY_SECONDS = 60.0
# Uses within this time share a transaction.
GATHERED_SECONDS = 1.0
# Looked up at a time, however many are refused.
MOST_REFUSED = 20

log = structlog.get_logger(__name__)


class KeyUse:
    """For one event loop. The uses are written while `keep` runs."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._noted: dict[str, float] = {}
        self._due: set[str] = set()
        self._refused: set[str] = set()
        self._is_due = asyncio.Event()

    def note(self, key_id: str, *, last_used_at: datetime | None) -> None:
        """Note that the key is used now. `last_used_at` is the value in its row."""
        if last_used_at is not None and timedelta(0) <= clock.now() - last_used_at < timedelta(
            seconds=NOTED_EVERY_SECONDS
        ):
            return
        self._note(key_id, self._due)

    def note_refused(self, key: str) -> None:
        """Note that this key was refused. The log tells if it begins like a usable one: the secret may be another."""
        if len(self._refused) < MOST_REFUSED:
            self._note(hint_of(key), self._refused)

    def _note(self, name: str, due: set[str]) -> None:
        if time.monotonic() - self._noted.get(name, -NOTED_EVERY_SECONDS) >= NOTED_EVERY_SECONDS:
            self._noted[name] = time.monotonic()
            due.add(name)
            self._is_due.set()

    async def keep(self) -> None:
        """Write the uses, without end. A failed write is repeated with a use of the key at least a minute later."""
        thread = CapacityLimiter(1)
        while True:
            await self._is_due.wait()
            self._is_due.clear()
            keys, self._due = self._due, set()
            refused, self._refused = self._refused, set()
            try:
                if refused:
                    await to_thread.run_sync(self._look_up, refused, limiter=thread, abandon_on_cancel=True)
                if keys:
                    await to_thread.run_sync(self._write, keys, limiter=thread, abandon_on_cancel=True)
            except (RegenError, SQLAlchemyError) as error:
                log.warning("key_use_not_noted", keys=len(keys), error=str(error))
            await asyncio.sleep(GATHERED_SECONDS)
            newest = time.monotonic() - NOTED_EVERY_SECONDS
            self._noted = {key: at for key, at in self._noted.items() if at > newest}

    def _write(self, keys: set[str]) -> None:
        with self._database.write() as session:
            account_queries.note_use(session, key_ids=keys, now=clock.now())

    def _look_up(self, hints: set[str]) -> None:
        with self._database.read() as session:
            found = account_queries.usable_keys_like(session, hints=hints, now=clock.now())
        for key_id, hint in found:
            log.error("key_of_another_secret", key_id=key_id, hint=hint)
