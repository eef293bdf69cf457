"""Webhook deliveries: claimed, retried after growing pauses, and given up."""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy.orm import Session

from app.platform.database import Database
from app.platform.lease import Lease
from app.platform.retry_policies import WEBHOOK_DELIVERY
from app.platform.secrets import Secrets
from app.webhooks import queries as webhook_queries
from app.webhooks.queries import AttemptResult, DueDelivery
from app.webhooks.service import SigningSecrets, signing_secrets
from app.webhooks.statuses import DeliveryStatus, WebhookEvent
from app.webhooks.tables import WebhookDelivery, WebhookEndpoint

MOST_RETRIES = len(WEBHOOK_DELIVERY.steps_seconds)
LONGEST_RETRY_AFTER_SECONDS = 24 * 3600.0
# An endpoint is disabled when a delivery is given up and it has accepted none for so long.
FAILING_SECONDS = 5 * 24 * 3600.0

GONE = "It answered 410: the receiver no longer exists."
FAILED_FOR_DAYS = "Nothing could be delivered to it for days."
NO_LONGER_WANTED = "The webhook was disabled or removed."
STOPPED = "The server stopped before the attempt had ended."

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class ClaimedDelivery:
    """A delivery that this process holds for one attempt. `claimed_at` is on the monotonic clock."""

    id: str
    attempt: int
    failures: int
    user_id: str
    endpoint_id: str | None
    render_id: str | None
    url: str
    host: str
    event: WebhookEvent
    facts: dict[str, Any]
    created_at: datetime
    is_failing: bool
    secrets: SigningSecrets
    claimed_at: float = field(default_factory=time.monotonic)

    @property
    def elapsed_seconds(self) -> float:
        return time.monotonic() - self.claimed_at

    @property
    def lease(self) -> Lease:
        return Lease(WebhookDelivery, self.id, self.attempt)


class DeliveryLedger:
    """One process's interface to the deliveries. Each method is one short transaction."""

    def __init__(self, *, database: Database, keys: Secrets, lease_seconds: float) -> None:
        self.database = database
        self.keys = keys
        self.lease_seconds = lease_seconds

    def due(
        self,
        *,
        limit: int,
        but_receivers: Collection[tuple[str, str]] = (),
        but_users: Collection[str] = (),
        but_failing: bool = False,
    ) -> Sequence[DueDelivery]:
        """Claimable deliveries, the longest due first. Changes nothing."""
        with self.database.read() as session:
            return webhook_queries.due_deliveries(
                session,
                limit=limit,
                but_receivers=but_receivers,
                but_users=but_users,
                but_failing=but_failing,
            )

    def claim(self, due: DueDelivery) -> ClaimedDelivery | None:
        """Lease the delivery. None when another process was faster, or its endpoint was removed or disabled."""
        with self.database.write() as session:
            if not webhook_queries.claim_delivery(session, due, lease_seconds=self.lease_seconds):
                return None
            row = session.get_one(WebhookDelivery, due.id)
            refusal = _refusal(session, row)
            if refusal is not None:
                lease = Lease(WebhookDelivery, row.id, row.attempt)
                webhook_queries.end_delivery(session, lease, DeliveryStatus.FAILED)
                not_sent = AttemptResult(duration_seconds=0.0, error=refusal)
                webhook_queries.note_attempt(session, lease, not_sent)
                return None
            return ClaimedDelivery(
                id=row.id,
                attempt=row.attempt,
                failures=row.failures,
                user_id=row.user_id,
                endpoint_id=row.endpoint_id,
                render_id=row.render_id,
                url=row.url,
                host=row.host,
                event=WebhookEvent(row.event),
                facts=row.facts,
                created_at=row.created_at,
                is_failing=due.is_failing,
                secrets=signing_secrets(session, user_id=row.user_id, keys=self.keys),
            )

    def note(self, claimed: ClaimedDelivery, result: AttemptResult) -> None:
        """End the delivery after its attempt, or release it for another after a growing pause."""
        facts = {
            "delivery_id": claimed.id,
            "type": claimed.event.value,
            "render_id": claimed.render_id,
            "host": claimed.host,
            "attempt": claimed.attempt,
            "status": result.status_code,
            "duration_ms": round(result.duration_seconds * 1000, 1),
        }
        if result.error is None:
            if self._end(claimed, result, DeliveryStatus.DELIVERED):
                log.info("webhook_delivered", **facts)
            return
        facts |= {"error": result.error, "detail": result.detail}
        pause = None if result.is_gone else pause_after(claimed.failures, result.retry_after_seconds)
        if pause is None:
            if self._end(claimed, result, DeliveryStatus.FAILED):
                log.warning("webhook_given_up", **facts)
        elif self._postpone(claimed, result, pause):
            log.warning("webhook_failed", next_in_seconds=round(pause, 1), **facts)

    def give_back(self, claimed: ClaimedDelivery) -> None:
        """Release the delivery when this process stops: due at once, and not counted as a failure."""
        result = AttemptResult(duration_seconds=claimed.elapsed_seconds, error=STOPPED)
        with self.database.write() as session:
            if claimed.lease.release(session, rest_seconds=0.0):
                webhook_queries.note_attempt(session, claimed.lease, result)

    def _end(self, claimed: ClaimedDelivery, result: AttemptResult, status: DeliveryStatus) -> bool:
        disabled: str | None = None
        with self.database.write() as session:
            self._lock_endpoint(session, claimed)
            ended = webhook_queries.end_delivery(session, claimed.lease, status)
            if ended:
                webhook_queries.note_attempt(session, claimed.lease, result)
                if claimed.endpoint_id is not None:
                    disabled = self._judge_endpoint(session, claimed.endpoint_id, result)
        if disabled is not None:
            log.warning(
                "webhook_disabled", webhook_id=claimed.endpoint_id, host=claimed.host, reason=disabled
            )
        return ended

    def _postpone(self, claimed: ClaimedDelivery, result: AttemptResult, pause: float) -> bool:
        with self.database.write() as session:
            self._lock_endpoint(session, claimed)
            postponed = claimed.lease.release(
                session, rest_seconds=pause, failures=WebhookDelivery.failures + 1
            )
            if postponed:
                webhook_queries.note_attempt(session, claimed.lease, result)
                if claimed.endpoint_id is not None:
                    webhook_queries.note_failing(session, endpoint_id=claimed.endpoint_id)
        return postponed

    def _lock_endpoint(self, session: Session, claimed: ClaimedDelivery) -> None:
        """Lock the endpoint before its deliveries: every transaction that changes both does."""
        if claimed.endpoint_id is not None:
            webhook_queries.find_endpoint(
                session, endpoint_id=claimed.endpoint_id, user_id=claimed.user_id, lock=True
            )

    def _judge_endpoint(self, session: Session, endpoint_id: str, result: AttemptResult) -> str | None:
        """Record the result at the endpoint. Returns why it is disabled now, None if it is not."""
        if result.error is None:
            webhook_queries.note_working(session, endpoint_id=endpoint_id)
            return None
        webhook_queries.note_failing(session, endpoint_id=endpoint_id)
        reason, failing_for = (GONE, None) if result.is_gone else (FAILED_FOR_DAYS, FAILING_SECONDS)
        disabled = webhook_queries.disable_endpoint(
            session, endpoint_id=endpoint_id, reason=reason, failing_for=failing_for
        )
        return reason if disabled else None


def pause_after(failures: int, retry_after_seconds: float | None = None) -> float | None:
    """Seconds until the next attempt, after one more failure than `failures`. None when the delivery is given up."""
    if failures >= MOST_RETRIES:
        return None
    return max(
        WEBHOOK_DELIVERY.pause(failures + 1), min(retry_after_seconds or 0.0, LONGEST_RETRY_AFTER_SECONDS)
    )


def _refusal(session: Session, row: WebhookDelivery) -> str | None:
    """Why no attempt should be made; None if one should."""
    if row.failures > MOST_RETRIES:
        return STOPPED  # The delivery itself may be what stops the server each time.
    if row.endpoint_id is None:
        return None
    # The endpoint may have been removed while the delivery was added.
    endpoint = session.get(WebhookEndpoint, row.endpoint_id)
    return NO_LONGER_WANTED if endpoint is None or endpoint.disabled_at is not None else None
