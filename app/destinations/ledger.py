"""One process's interface to the ways of results: claimed, kept, retried after growing pauses, and given up."""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

import structlog

from app.destinations import queries
from app.destinations.queries import DueDestination
from app.destinations.tables import Destination
from app.platform.database import Database, database_now
from app.platform.lease import Lease
from app.platform.media.containers import content_type_of_name
from app.platform.retry_policies import DESTINATION_DELIVERY
from app.renders.statuses import DestinationStatus
from app.renders.tables import Render
from app.webhooks.urls import host_of

MOST_RETRIES = len(DESTINATION_DELIVERY.steps_seconds)
REMOVED = "The result is no longer stored."
STOPPED = "The server stopped before the attempt had ended."
LOST = "Nothing was heard of the last attempts: the servers that made them have ended."

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class PutResult:
    """Without `error` it was delivered. `is_final`: no further attempt would succeed. `detail` is for the log."""

    error: str | None = None
    detail: str | None = None
    is_final: bool = False


@dataclass(frozen=True, kw_only=True)
class ClaimedDestination:
    """One that this process holds for one attempt. The `url` is a secret. `claimed_at` is on the monotonic clock."""

    id: str
    attempt: int
    failures: int
    user_id: str
    url: str = field(repr=False)
    storage_key: str
    is_failing: bool
    claimed_at: float = field(default_factory=time.monotonic)

    @property
    def lease(self) -> Lease:
        return Lease(Destination, self.id, self.attempt)

    @property
    def host(self) -> str:
        return host_of(self.url)

    @property
    def content_type(self) -> str:
        return content_type_of_name(PurePath(self.storage_key).name)


class DestinationLedger:
    """Each method is one short transaction."""

    def __init__(self, *, database: Database, lease_seconds: float) -> None:
        self._database = database
        self.lease_seconds = lease_seconds

    def due(self, *, limit: int, but_users: Collection[str], but_failing: bool) -> Sequence[DueDestination]:
        """Claimable ones, the longest due first. Changes nothing."""
        with self._database.read() as session:
            return queries.due_destinations(
                session, limit=limit, but_users=but_users, but_failing=but_failing
            )

    def claim(self, due: DueDestination) -> ClaimedDestination | None:
        """Lease it. None when another process was faster, or when there is nothing to send any more."""
        with self._database.write() as session:
            if not queries.claim(session, due, lease_seconds=self.lease_seconds):
                return None
            row = session.get_one(Destination, due.id, populate_existing=True)
            render = session.get_one(Render, due.id)
            lease = Lease(Destination, row.id, row.attempt)
            refusal = LOST if row.failures > MOST_RETRIES else None
            if render.output_key is None or render.files_removed_at is not None:
                refusal = REMOVED
            if refusal is not None or render.destination is None or render.output_key is None:
                queries.end(session, lease, DestinationStatus.FAILED, message=refusal)
                return None
            return ClaimedDestination(
                id=row.id,
                attempt=row.attempt,
                failures=row.failures,
                user_id=row.user_id,
                url=render.destination,
                storage_key=render.output_key,
                is_failing=due.is_failing,
            )

    def keep(self, claimed: ClaimedDestination) -> bool:
        """Renew the lease. False when it is lost."""
        with self._database.write() as session:
            until = database_now(plus_seconds=self.lease_seconds)
            return claimed.lease.renew(session, seconds=self.lease_seconds, retry_at=until)

    def note(self, claimed: ClaimedDestination, result: PutResult) -> None:
        """End the way after its attempt, or release it for another after a growing pause."""
        facts = {
            "render_id": claimed.id,
            "host": claimed.host,
            "attempt": claimed.attempt,
            "duration_seconds": round(time.monotonic() - claimed.claimed_at, 1),
        }
        if result.error is None:
            if self._end(claimed, DestinationStatus.DELIVERED, None):
                log.info("result_delivered", **facts)
            return
        facts |= {"error": result.error, "detail": result.detail}
        if result.is_final or claimed.failures >= MOST_RETRIES:
            if self._end(claimed, DestinationStatus.FAILED, result.error):
                log.warning("result_delivery_given_up", **facts)
            return
        pause = DESTINATION_DELIVERY.pause(claimed.failures + 1)
        with self._database.write() as session:
            postponed = queries.postpone(
                session, claimed.lease, rest_seconds=pause, failed=True, message=result.error
            )
        if postponed:
            log.warning("result_delivery_failed", next_in_seconds=round(pause, 1), **facts)

    def give_back(self, claimed: ClaimedDestination) -> None:
        """Release it when this process stops: due at once, and not counted as a failure."""
        with self._database.write() as session:
            queries.postpone(session, claimed.lease, rest_seconds=0.0, failed=False, message=STOPPED)

    def _end(self, claimed: ClaimedDestination, status: DestinationStatus, message: str | None) -> bool:
        with self._database.write() as session:
            return queries.end(session, claimed.lease, status, message=message)
