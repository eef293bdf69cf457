"""Webhook deliveries: claimed, retried after growing pauses, and given up."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import Row
from sqlalchemy.orm import Session

from app.platform.database import Database
from app.platform.deliveries import STOPPED, Claimed, DeliveryLedger, DueDelivery, Full, claim_due
from app.platform.lease import Lease
from app.platform.retry_policies import WEBHOOK_DELIVERY
from app.platform.secrets import Secrets
from app.webhooks import queries as webhook_queries
from app.webhooks.queries import PostResult
from app.webhooks.service import SigningSecrets, signing_secrets
from app.webhooks.statuses import DeliveryStatus, WebhookEvent
from app.webhooks.tables import WebhookDelivery, WebhookEndpoint

MOST_RETRIES = len(WEBHOOK_DELIVERY.steps_seconds)
# An endpoint is disabled when a delivery is given up and it has accepted none for so long.
FAILING_SECONDS = 5 * 24 * 3600.0

GONE = "It answered 410: the receiver no longer exists."
FAILED_FOR_DAYS = "Nothing could be delivered to it for days."
NO_LONGER_WANTED = "The webhook was disabled or removed."

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class ClaimedDelivery(Claimed):
    table = WebhookDelivery

    endpoint_id: str | None
    render_id: str | None
    event: WebhookEvent
    facts: dict[str, Any]
    created_at: datetime
    secrets: SigningSecrets


class WebhookLedger(DeliveryLedger[ClaimedDelivery, PostResult]):
    policy = WEBHOOK_DELIVERY

    def __init__(self, *, database: Database, keys: Secrets, lease_seconds: float) -> None:
        super().__init__(database=database, lease_seconds=lease_seconds)
        self.keys = keys

    def _due_rows(self, session: Session, full: Full, limit: int) -> Sequence[Row[Any]]:
        return webhook_queries.due_deliveries(session, limit=limit, full=full)

    def claim(self, due: DueDelivery) -> ClaimedDelivery | None:
        """None also when its endpoint was removed or disabled, which ends the delivery."""
        with self.database.write() as session:
            if not claim_due(session, WebhookDelivery, due, lease_seconds=self.lease_seconds):
                return None
            row = session.get_one(WebhookDelivery, due.id)
            refusal = _refusal(session, row)
            if refusal is not None:
                lease = Lease(WebhookDelivery, row.id, row.attempt)
                webhook_queries.end_delivery(session, lease, DeliveryStatus.FAILED)
                not_sent = PostResult(duration_seconds=0.0, error=refusal)
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

    def _tell(self, claimed: ClaimedDelivery, result: PostResult, pause: float | None) -> None:
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
            log.info("webhook_delivered", **facts)
            return
        facts |= {"error": result.error, "detail": result.detail}
        if pause is None:
            log.warning("webhook_given_up", **facts)
        else:
            log.warning("webhook_failed", next_in_seconds=round(pause, 1), **facts)

    def give_back(self, claimed: ClaimedDelivery) -> None:
        result = PostResult(duration_seconds=claimed.elapsed_seconds, error=STOPPED)
        with self.database.write() as session:
            if claimed.lease.release(session, rest_seconds=0.0):
                webhook_queries.note_attempt(session, claimed.lease, result)

    def _end(self, claimed: ClaimedDelivery, result: PostResult) -> bool:
        status = DeliveryStatus.FAILED if result.error else DeliveryStatus.DELIVERED
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

    def _postpone(self, claimed: ClaimedDelivery, result: PostResult, pause: float) -> bool:
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

    def _judge_endpoint(self, session: Session, endpoint_id: str, result: PostResult) -> str | None:
        """Record the result at the endpoint. Returns why it is disabled now, None if it is not."""
        if result.error is None:
            webhook_queries.note_working(session, endpoint_id=endpoint_id)
            return None
        webhook_queries.note_failing(session, endpoint_id=endpoint_id)
        reason, failing_for = (GONE, None) if result.is_final else (FAILED_FOR_DAYS, FAILING_SECONDS)
        disabled = webhook_queries.disable_endpoint(
            session, endpoint_id=endpoint_id, reason=reason, failing_for=failing_for
        )
        return reason if disabled else None


def _refusal(session: Session, row: WebhookDelivery) -> str | None:
    """Why no attempt should be made; None if one should."""
    if row.failures > MOST_RETRIES:
        return STOPPED  # The delivery itself may be what stops the server each time.
    if row.endpoint_id is None:
        return None
    # The endpoint may have been removed while the delivery was added.
    endpoint = session.get(WebhookEndpoint, row.endpoint_id)
    return NO_LONGER_WANTED if endpoint is None or endpoint.disabled_at is not None else None
