"""Sends webhooks: finds deliveries that are due, claims them, and sends them to their receivers.

Every API process has one dispatcher. Claims in the database ensure that one process at a time sends a delivery.
"""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any

import structlog

from app.http.metrics import webhook_attempts
from app.http.resources import Resources
from app.platform.errors import OutboundError, RegenError
from app.platform.outbound import guarded_client, outbound_errors
from app.platform.retry_policies import WEBHOOK_DISPATCH
from app.webhooks.delivery import GONE, ClaimedDelivery, DeliveryLedger
from app.webhooks.events import OutgoingEvent, outgoing_event
from app.webhooks.queries import AttemptResult, DueDelivery

LOOK_SECONDS = 1.0
LEASE_MARGIN_SECONDS = 30.0
# Requests of one user to one host at once: a receiver that never answers occupies two threads and delays no other.
MOST_PER_RECEIVER = 2
MOST_ANSWER_BYTES = 4096
# When stopping, requests have so long to end; then their deliveries are given back.
GRACE_SECONDS = 2.0
GIVE_BACK_SECONDS = 5.0

NOT_MADE = "The server could not make the event."

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """The receiver's answer, whose body is ignored."""

    status_code: int
    retry_after: str | None = None


Send = Callable[[OutgoingEvent], Reply]


@dataclass(kw_only=True)
class _Load:
    """How many deliveries are in hand: for each user and host, for each user, and of those that are failing."""

    receivers: Counter[tuple[str, str]] = field(default_factory=Counter)
    users: Counter[str] = field(default_factory=Counter)
    failing: int = 0

    def add(self, one: DueDelivery | ClaimedDelivery) -> None:
        self.receivers[one.user_id, one.host] += 1
        self.users[one.user_id] += 1
        self.failing += one.is_failing


class WebhookDispatcher:
    """`base_url` is where clients reach the API, for the URLs in events. `send` may be replaced before `start`; it
    raises OutboundError when no answer comes.
    """

    def __init__(
        self, resources: Resources, *, base_url: str | None, look_seconds: float = LOOK_SECONDS
    ) -> None:
        settings = resources.settings
        self.send: Send = self._send
        self.ledger = DeliveryLedger(
            database=resources.database,
            keys=resources.secrets,
            lease_seconds=settings.webhook_timeout_seconds + LEASE_MARGIN_SECONDS,
        )
        self._resources = resources
        self._base_url = base_url
        self._look_seconds = look_seconds
        self._most = settings.webhook_concurrency
        # A user may have any number of hosts.
        self._most_per_user = max(2 * MOST_PER_RECEIVER, self._most // 4)
        # For all users: receivers that did not answer last time leave room for the others.
        self._most_failing = max(1, self._most // 2)
        self._in_hand: dict[str, ClaimedDelivery] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._trouble: type[Exception] | None = None

    def start(self) -> None:
        """Start looking for deliveries, about once a second. Does nothing if this process sends no webhooks."""
        if self._most == 0:
            return
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Begin no further delivery, and give back those that do not end at once. Returns within seconds."""
        self._stopping.set()
        self._wake.set()
        if self._thread is None:
            return
        self._thread.join(GIVE_BACK_SECONDS)
        deadline = time.monotonic() + GRACE_SECONDS
        while self._in_hand and time.monotonic() < deadline:
            time.sleep(0.02)
        # If the database does not answer, the leases expire.
        giving_back = threading.Thread(target=self._give_back, name="webhooks-end", daemon=True)
        giving_back.start()
        giving_back.join(GIVE_BACK_SECONDS)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            pause = self._look_seconds
            try:
                self._look()
                self._trouble = None
            except Exception as error:
                # No error may end the thread.
                pause = max(pause, WEBHOOK_DISPATCH.pause(1))
                self._tell(error)
            self._wake.wait(pause)

    def _tell(self, error: Exception) -> None:
        """Log the error, once for each outage."""
        trouble, self._trouble = self._trouble, type(error)
        if trouble is type(error):
            return
        if isinstance(error, RegenError):
            log.warning("webhooks_not_looked_for", error=error.message, detail=error.detail)
        else:
            log.exception("webhooks_not_looked_for")

    def _look(self) -> None:
        """Claim and send what is due, within the limits."""
        while not self._stopping.is_set():
            load = self._load()
            room = self._most - load.users.total()
            if room <= 0:
                return
            due = self.ledger.due(
                limit=room,
                but_receivers=[one for one, count in load.receivers.items() if count >= MOST_PER_RECEIVER],
                but_users=[user for user, count in load.users.items() if count >= self._share(load)],
                but_failing=load.failing >= self._most_failing,
            )
            if not due:
                return
            for one in due:
                if self._has_room(load, one) and not self._stopping.is_set():
                    load.add(one)
                    self._take(one)

    def _has_room(self, load: _Load, due: DueDelivery) -> bool:
        return (
            load.receivers[due.user_id, due.host] < MOST_PER_RECEIVER
            and load.users[due.user_id] < self._share(load)
            and not (due.is_failing and load.failing >= self._most_failing)
        )

    def _share(self, load: _Load) -> int:
        """How many deliveries a user may have in hand: of the last quarter of the places one, so that users together,
        however slow their receivers, leave places to others."""
        is_scarce = self._most - load.users.total() <= self._most // 4
        return 1 if is_scarce else self._most_per_user

    def _load(self) -> _Load:
        load = _Load()
        with self._lock:
            for one in self._in_hand.values():
                load.add(one)
        return load

    def _take(self, due: DueDelivery) -> None:
        claimed = self.ledger.claim(due)
        if claimed is None:
            return
        with self._lock:
            self._in_hand[claimed.id] = claimed
        thread = threading.Thread(
            target=self._deliver, args=(claimed,), name=f"webhook-{claimed.id}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # No thread is left; the lease will expire.
            self._put_down(claimed)
            raise

    def _put_down(self, claimed: ClaimedDelivery) -> None:
        with self._lock:
            self._in_hand.pop(claimed.id, None)

    def _deliver(self, claimed: ClaimedDelivery) -> None:
        try:
            result = self._attempt(claimed)
            webhook_attempts.labels(outcome="failed" if result.error else "delivered").inc()
            self._note(claimed, result)
        except Exception:
            # The lease expires, and the delivery is tried again.
            log.exception("webhook_attempt_lost", delivery_id=claimed.id)
        finally:
            self._put_down(claimed)
            # Another may wait for this host.
            self._wake.set()

    def _attempt(self, claimed: ClaimedDelivery) -> AttemptResult:
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
            return result(status_code=status, error=GONE, is_gone=True)
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

    def _note(self, claimed: ClaimedDelivery, result: AttemptResult) -> None:
        """Record the result; tries again while the database is away, because otherwise the event is sent twice."""
        while True:
            try:
                self.ledger.note(claimed, result)
                return
            except RegenError:
                is_over = claimed.elapsed_seconds > self.ledger.lease_seconds
                if self._stopping.wait(LOOK_SECONDS) or is_over:
                    raise

    def _give_back(self) -> None:
        with self._lock:
            left = list(self._in_hand.values())
        for claimed in left:
            try:
                self.ledger.give_back(claimed)
            except RegenError as error:
                log.warning(
                    "webhook_not_given_back",
                    delivery_id=claimed.id,
                    error=error.message,
                    detail=error.detail,
                )


def _result(claimed: ClaimedDelivery, **facts: Any) -> AttemptResult:
    return AttemptResult(duration_seconds=claimed.elapsed_seconds, **facts)


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
