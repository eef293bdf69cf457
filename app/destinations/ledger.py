"""One process's interface to the ways of results: claimed, kept, retried after growing pauses, and given up."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import structlog
from sqlalchemy import Row
from sqlalchemy.orm import Session

from app.destinations import queries
from app.destinations.tables import Destination
from app.platform.deliveries import (
    STOPPED,
    AttemptResult,
    Claimed,
    DeliveryLedger,
    DueDelivery,
    Full,
    due_query,
)
from app.platform.lease import Lease
from app.platform.media.containers import content_type_of_name
from app.platform.retry_policies import DESTINATION_DELIVERY
from app.renders.statuses import DestinationStatus
from app.renders.tables import Render
from app.webhooks.urls import host_of

MOST_RETRIES = len(DESTINATION_DELIVERY.steps_seconds)
REMOVED = "The result is no longer stored."
LOST = "Nothing was heard of the last attempts: the servers that made them have ended."

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class ClaimedDestination(Claimed):
    """`id` is the render's. The `url` is a secret."""

    table = Destination

    storage_key: str

    @property
    def content_type(self) -> str:
        return content_type_of_name(PurePath(self.storage_key).name)


class DestinationLedger(DeliveryLedger[ClaimedDestination, AttemptResult]):
    policy = DESTINATION_DELIVERY

    def _due_rows(self, session: Session, full: Full, limit: int) -> Sequence[Row[Any]]:
        query = due_query(Destination, full=full, limit=limit, is_failing=Destination.failures > 0)
        return session.execute(query).all()

    def claim(self, due: DueDelivery) -> ClaimedDestination | None:
        with self.database.write() as session:
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
                host=host_of(render.destination),
                storage_key=render.output_key,
                is_failing=due.is_failing,
            )

    def _tell(self, claimed: ClaimedDestination, result: AttemptResult, pause: float | None) -> None:
        facts = {
            "render_id": claimed.id,
            "host": claimed.host,
            "attempt": claimed.attempt,
            "duration_seconds": round(claimed.elapsed_seconds, 1),
        }
        if result.error is None:
            log.info("result_delivered", **facts)
            return
        facts |= {"error": result.error, "detail": result.detail}
        if pause is None:
            log.warning("result_delivery_given_up", **facts)
        else:
            log.warning("result_delivery_failed", next_in_seconds=round(pause, 1), **facts)

    def give_back(self, claimed: ClaimedDestination) -> None:
        with self.database.write() as session:
            queries.postpone(session, claimed.lease, rest_seconds=0.0, failed=False, message=STOPPED)

    def _end(self, claimed: ClaimedDestination, result: AttemptResult) -> bool:
        status = DestinationStatus.FAILED if result.error else DestinationStatus.DELIVERED
        with self.database.write() as session:
            return queries.end(session, claimed.lease, status, message=result.error)

    def _postpone(self, claimed: ClaimedDestination, result: AttemptResult, pause: float) -> bool:
        with self.database.write() as session:
            return queries.postpone(
                session, claimed.lease, rest_seconds=pause, failed=True, message=result.error
            )
