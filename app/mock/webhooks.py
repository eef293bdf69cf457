"""The mock's webhooks: sent by the server's own dispatcher, soon, subject to the rules, and logged."""

import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import structlog

from app.http.resources import Resources
from app.mock.fault_rules import WEBHOOK
from app.mock.faults import ActiveFaults
from app.mock.recorder import Entry, Log
from app.platform.errors import OutboundError
from app.platform.json_values import timestamp
from app.webhooks.dispatcher import Reply, Send, WebhookDispatcher
from app.webhooks.events import OutgoingEvent

LOOK_SECONDS = 0.1
ACCEPTED = 200
# How long a reordered event waits for the next one at most. Its lease is longer.
HOLD_SECONDS = 20.0
STALE_AGE = timedelta(hours=1)
OTHER_SECRET = "whsec_" + "c29tZWJvZHkgZWxzZSdzIHNlY3JldCwgbm90IHlvdXJz"

log = structlog.get_logger(__name__)


@dataclass(kw_only=True)
class SentWebhook(Entry):
    """One sending of an event. `status` is that of the answer, None without one; then `error` says why, unless the rule
    `fault` let the event get lost."""

    id: str
    attempt: int
    sent_at: str
    url: str
    body: Any
    status: int | None = None
    error: str | None = None
    fault: dict[str, Any] | None = None


def make_dispatcher(
    resources: Resources, *, base_url: str | None, faults: ActiveFaults, sent: Log[SentWebhook]
) -> WebhookDispatcher:
    dispatcher = WebhookDispatcher(resources, base_url=base_url, look_seconds=LOOK_SECONDS)
    dispatcher.send = _FaultySender(dispatcher.send, faults, sent)
    return dispatcher


class _FaultySender:
    """Sends events subject to the rules, and logs them. Safe to use from any thread."""

    def __init__(self, send: Send, faults: ActiveFaults, sent: Log[SentWebhook]) -> None:
        self._send_as_it_is = send
        self._faults = faults
        self._log = sent
        self._sent: Counter[str] = Counter()
        self._changed = threading.Condition()

    def __call__(self, event: OutgoingEvent) -> Reply:
        action = self._faults.next_of(WEBHOOK, json.loads(event.body)["type"])
        if action is None:
            return self._send(event)
        fault = action.model_dump(exclude_defaults=True)
        time.sleep(action.latency_seconds)
        match action.webhook:
            case "lost":
                log.info("mock_webhook_lost", url=event.url)
                self._note(event, fault)
                return Reply(status_code=ACCEPTED)
            case "doubled":
                self._send(event, fault=fault)
            case "reordered":
                self._await_next(event.url)
            case "forged":
                event = replace(event, secrets=[OTHER_SECRET])
            case "stale":
                event = replace(event, sent_at=event.sent_at - STALE_AGE)
        return self._send(event, fault=fault)

    def _send(self, event: OutgoingEvent, *, fault: dict[str, Any] | None = None) -> Reply:
        sent = self._note(event, fault)
        try:
            reply = self._send_as_it_is(event)
            sent.status = reply.status_code
            return reply
        except OutboundError as error:
            sent.error = error.message
            raise
        finally:
            with self._changed:
                self._sent[event.url] += 1
                self._changed.notify_all()

    def _note(self, event: OutgoingEvent, fault: dict[str, Any] | None) -> SentWebhook:
        earlier = [sent.attempt for sent in self._log.all() if sent.id == event.id]
        return self._log.add(
            lambda number: SentWebhook(
                number=number,
                id=event.id,
                attempt=max(earlier, default=0) + 1,
                sent_at=timestamp(event.sent_at),
                url=event.url,
                body=json.loads(event.body),
                fault=fault,
            )
        )

    def _await_next(self, url: str) -> None:
        """Returns once another event was sent there, or after HOLD_SECONDS."""
        with self._changed:
            before = self._sent[url]
            self._changed.wait_for(lambda: self._sent[url] > before, timeout=HOLD_SECONDS)
