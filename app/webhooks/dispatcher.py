"""Sends webhooks to their receivers."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any

import structlog

from app.http.metrics import webhook_attempts
from app.http.resources import Resources
from app.platform.dispatcher import LOOK_SECONDS, Dispatcher, DispatchLimits
from app.platform.errors import OutboundError, RegenError
from app.platform.outbound import guarded_client, outbound_errors
from app.webhooks.delivery import GONE, ClaimedDelivery, WebhookLedger
from app.webhooks.events import OutgoingEvent, outgoing_event
from app.webhooks.queries import PostResult

LEASE_MARGIN_SECONDS = 30.0
# Requests of one user to one host at once: a receiver that never answers occupies two threads and delays no other.
MOST_PER_RECEIVER = 2
MOST_ANSWER_BYTES = 4096
GRACE_SECONDS = 2.0

NOT_MADE = "The server could not make the event."

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """The receiver's answer, whose body is ignored."""

    status_code: int
    retry_after: str | None = None


Send = Callable[[OutgoingEvent], Reply]


class WebhookDispatcher(Dispatcher[ClaimedDelivery, PostResult]):
    """`base_url` is where clients reach the API, for the URLs in events. `send` may be replaced before `start`; it
    raises OutboundError when no answer comes.
    """

    def __init__(
        self, resources: Resources, *, base_url: str | None, look_seconds: float = LOOK_SECONDS
    ) -> None:
        settings, most = resources.settings, resources.settings.webhook_concurrency
        ledger = WebhookLedger(
            database=resources.database,
            keys=resources.secrets,
            lease_seconds=settings.webhook_timeout_seconds + LEASE_MARGIN_SECONDS,
        )
        # A user may have any number of hosts.
        per_user = max(2 * MOST_PER_RECEIVER, most // 4)
        super().__init__(
            ledger,
            name="webhooks",
            limits=DispatchLimits(
                most=most, per_user=per_user, scarce=most // 4, per_receiver=MOST_PER_RECEIVER
            ),
            attempts=webhook_attempts,
            look_seconds=look_seconds,
            grace_seconds=GRACE_SECONDS,
        )
        self.send: Send = self._send
        self._resources = resources
        self._base_url = base_url

    def attempt(self, claimed: ClaimedDelivery) -> PostResult:
        result = partial(_result, claimed)
        try:
            with self._resources.database.read() as session:
                event = outgoing_event(session, claimed, resources=self._resources, base_url=self._base_url)
        except RegenError as error:
            return result(error=NOT_MADE, detail=f"{error.message} {error.detail}")
        try:
            reply = self.send(event)
        except OutboundError as error:
            return result(error=error.message, detail=error.detail)
        status = reply.status_code
        if 200 <= status < 300:
            return result(status_code=status)
        if status == 410:
            return result(status_code=status, error=GONE, is_final=True)
        told = f"It answered {status}."
        if 300 <= status < 400:
            told += " Redirects are not followed."
        return result(
            status_code=status, error=told, retry_after_seconds=_retry_after_seconds(reply.retry_after)
        )

    def _send(self, event: OutgoingEvent) -> Reply:
        seconds = self._resources.settings.webhook_timeout_seconds
        networks = self._resources.settings.outbound_allowed_networks
        with (
            outbound_errors(),
            guarded_client(allowed_networks=networks, total_seconds=seconds, read_seconds=seconds) as client,
            client.stream("POST", event.url, content=event.body.encode(), headers=event.headers) as answer,
        ):
            # Only the status counts; reading a short body lets the receiver finish its answer.
            with contextlib.suppress(OutboundError), outbound_errors():
                taken = 0
                for chunk in answer.iter_raw(MOST_ANSWER_BYTES):
                    taken += len(chunk)
                    if taken >= MOST_ANSWER_BYTES:
                        break
            return Reply(status_code=answer.status_code, retry_after=answer.headers.get("Retry-After"))

    def tell_outage(self, error: Exception) -> None:
        if isinstance(error, RegenError):
            log.warning("webhooks_not_looked_for", error=error.message, detail=error.detail)
        else:
            log.exception("webhooks_not_looked_for")

    def tell_lost(self, claimed: ClaimedDelivery) -> None:
        log.exception("webhook_attempt_lost", delivery_id=claimed.id)

    def tell_kept(self, claimed: ClaimedDelivery, error: RegenError) -> None:
        facts = {"delivery_id": claimed.id, "error": error.message, "detail": error.detail}
        log.warning("webhook_not_given_back", **facts)


def _result(claimed: ClaimedDelivery, **facts: Any) -> PostResult:
    return PostResult(duration_seconds=claimed.elapsed_seconds, **facts)


def _retry_after_seconds(text: str | None) -> float | None:
    """The seconds of a Retry-After header, given as a number or as a date; None for anything else."""
    if text is None:
        return None
    if text.strip().isdecimal() and text.isascii():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max((moment - datetime.now(UTC)).total_seconds(), 0.0)
