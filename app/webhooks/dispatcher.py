"""Sends webhooks: looks for deliveries that are due, claims them, and tells the receivers.

Every API process has one. They share the work by claims in the database, so that each delivery is one's at a time.
"""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import structlog

from app.http.metrics import webhook_attempts
from app.http.resources import Resources
from app.platform.errors import OutboundError, RegenError
from app.platform.outbound import guarded_client, outbound_errors
from app.platform.retry_policies import WEBHOOK_DISPATCH
from app.webhooks.delivery import GONE, ClaimedDelivery, DeliveryLedger, Outcome
from app.webhooks.events import OutgoingEvent, outgoing_event
from app.webhooks.queries import DueDelivery

LOOK_SECONDS = 1.0
LEASE_MARGIN_SECONDS = 30.0
# Of one user to one host at once: a receiver that never answers occupies two threads, and delays no other receiver.
MOST_PER_RECEIVER = 2
MOST_ANSWER_BYTES = 4096
# At the end: what is nearly done may be done, then the rest is given back.
GRACE_SECONDS = 2.0
GIVE_BACK_SECONDS = 5.0

NOT_MADE = "The server could not make the event."

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What the receiver answered. Its body is of no interest."""

    status_code: int
    retry_after: str | None = None


Send = Callable[[OutgoingEvent], Reply]


@dataclass(frozen=True, kw_only=True)
class _InHand:
    claimed: ClaimedDelivery
    is_failing: bool
    since: float


@dataclass(kw_only=True)
class _Load:
    """How many deliveries are in hand: for each user and host, for each user, and of those that are failing."""

    receivers: Counter[tuple[str, str]] = field(default_factory=Counter)
    users: Counter[str] = field(default_factory=Counter)
    failing: int = 0

    def add(self, *, user_id: str, host: str, is_failing: bool) -> None:
        self.receivers[user_id, host] += 1
        self.users[user_id] += 1
        self.failing += is_failing


class WebhookDispatcher:
    """`base_url` is where clients reach the API, for the URLs in events. `send` may be replaced before `start`.

    `send` raises OutboundError when there is no answer.
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
        # Of one user, who may have any number of hosts.
        self._most_per_user = max(2 * MOST_PER_RECEIVER, self._most // 4)
        # Of all users: receivers that did not answer last time leave room for those that do.
        self._most_failing = max(1, self._most // 2)
        self._in_hand: dict[str, _InHand] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._trouble: type[Exception] | None = None

    def start(self) -> None:
        """Looks about once a second from now on. Does nothing in a process that is to send none."""
        if self._most == 0:
            return
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Begins nothing more, and gives back what is in hand and does not end at once. Returns within seconds."""
        self._stopping.set()
        self._wake.set()
        if self._thread is None:
            return
        self._thread.join(GIVE_BACK_SECONDS)
        deadline = time.monotonic() + GRACE_SECONDS
        while self._in_hand and time.monotonic() < deadline:
            time.sleep(0.02)
        # A database that hangs keeps the leases; when they run out, others go on.
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
                # Whatever it was, webhooks must not end with it.
                pause = max(pause, WEBHOOK_DISPATCH.pause(1))
                self._tell(error)
            self._wake.wait(pause)

    def _tell(self, error: Exception) -> None:
        """Once for each outage, however long it lasts."""
        trouble, self._trouble = self._trouble, type(error)
        if trouble is type(error):
            return
        if isinstance(error, RegenError):
            log.warning("webhooks_not_looked_for", error=error.message, detail=error.detail)
        else:
            log.exception("webhooks_not_looked_for")

    def _look(self) -> None:
        """Take in hand what is due, as far as there is room."""
        while not self._stopping.is_set():
            load = self._load()
            room = self._most - load.users.total()
            if room <= 0:
                return
            due = self.ledger.due(
                limit=room,
                but_receivers=[one for one, count in load.receivers.items() if count >= MOST_PER_RECEIVER],
                but_users=[user for user, count in load.users.items() if count >= self._most_per_user],
                but_failing=load.failing >= self._most_failing,
            )
            if not due:
                return
            for one in due:
                if self._has_room(load, one) and not self._stopping.is_set():
                    load.add(user_id=one.user_id, host=one.host, is_failing=one.is_failing)
                    self._take(one)

    def _has_room(self, load: _Load, due: DueDelivery) -> bool:
        return (
            load.receivers[due.user_id, due.host] < MOST_PER_RECEIVER
            and load.users[due.user_id] < self._most_per_user
            and not (due.is_failing and load.failing >= self._most_failing)
        )

    def _load(self) -> _Load:
        with self._lock:
            in_hand = list(self._in_hand.values())
        load = _Load()
        for one in in_hand:
            load.add(user_id=one.claimed.user_id, host=one.claimed.host, is_failing=one.is_failing)
        return load

    def _take(self, due: DueDelivery) -> None:
        claimed = self.ledger.claim(due)
        if claimed is None:
            return
        with self._lock:
            self._in_hand[claimed.id] = _InHand(
                claimed=claimed, is_failing=due.is_failing, since=time.monotonic()
            )
        thread = threading.Thread(
            target=self._deliver, args=(claimed,), name=f"webhook-{claimed.id}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # no more threads to be had: its lease will run out
            self._put_down(claimed)
            raise

    def _put_down(self, claimed: ClaimedDelivery) -> None:
        with self._lock:
            self._in_hand.pop(claimed.id, None)

    def _deliver(self, claimed: ClaimedDelivery) -> None:
        began = time.monotonic()
        try:
            outcome = self._attempt(claimed)
            webhook_attempts.labels(outcome="failed" if outcome.error else "delivered").inc()
            self._note(claimed, outcome, until=began + self.ledger.lease_seconds)
        except Exception:
            # The lease runs out, and the delivery is tried again.
            log.exception("webhook_attempt_lost", delivery_id=claimed.id)
        finally:
            self._put_down(claimed)
            # There may be more for the same host.
            self._wake.set()

    def _attempt(self, claimed: ClaimedDelivery) -> Outcome:
        began = time.monotonic()

        def outcome(**facts: object) -> Outcome:
            return Outcome(duration_seconds=time.monotonic() - began, **facts)  # type: ignore[arg-type]

        try:
            with self._resources.database.read() as session:
                event = outgoing_event(session, claimed, resources=self._resources, base_url=self._base_url)
        except RegenError as error:
            return outcome(error=NOT_MADE, detail=f"{error.message} {error.detail}")
        try:
            reply = self.send(event)
        except OutboundError as error:
            return outcome(error=error.message, detail=error.detail)
        status = reply.status_code
        if 200 <= status < 300:
            return outcome(status_code=status)
        if status == 410:
            return outcome(status_code=status, error=GONE, is_gone=True)
        told = f"It answered {status}."
        if 300 <= status < 400:
            told += " Redirects are not followed."
        return outcome(
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
            # The status says it all; a receiver that is still writing is let finish, if that is soon.
            with contextlib.suppress(OutboundError), outbound_errors():
                taken = 0
                for chunk in answer.iter_raw(MOST_ANSWER_BYTES):
                    taken += len(chunk)
                    if taken >= MOST_ANSWER_BYTES:
                        break
            return Reply(status_code=answer.status_code, retry_after=answer.headers.get("Retry-After"))

    def _note(self, claimed: ClaimedDelivery, outcome: Outcome, *, until: float) -> None:
        """Write down how it went, also when the database is away for a moment: else it would be sent twice."""
        while True:
            try:
                self.ledger.note(claimed, outcome)
                return
            except RegenError:
                if self._stopping.wait(LOOK_SECONDS) or time.monotonic() > until:
                    raise

    def _give_back(self) -> None:
        with self._lock:
            left = list(self._in_hand.values())
        for one in left:
            try:
                self.ledger.give_back(one.claimed, duration_seconds=time.monotonic() - one.since)
            except RegenError as error:
                log.warning(
                    "webhook_not_given_back",
                    delivery_id=one.claimed.id,
                    error=error.message,
                    detail=error.detail,
                )


def _retry_after_seconds(text: str | None) -> float | None:
    """Seconds, also where a date is named. None for what is neither."""
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
