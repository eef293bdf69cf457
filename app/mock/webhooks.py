"""The mock's webhooks: sent by the server's own dispatcher, soon, subject to the rules."""

import json
import threading
import time
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import structlog

from app.http.resources import Resources
from app.mock.faults import ActiveFaults
from app.webhooks.dispatcher import Reply, Send, WebhookDispatcher
from app.webhooks.events import OutgoingEvent

LOOK_SECONDS = 0.1
ACCEPTED = 200
# How long a reordered event waits for the next one at most. Its lease is longer.
HOLD_SECONDS = 20.0
STALE_AGE = timedelta(hours=1)
OTHER_SECRET = "whsec_" + "c29tZWJvZHkgZWxzZSdzIHNlY3JldCwgbm90IHlvdXJz"

log = structlog.get_logger(__name__)


def make_dispatcher(resources: Resources, *, base_url: str | None, faults: ActiveFaults) -> WebhookDispatcher:
    dispatcher = WebhookDispatcher(resources, base_url=base_url, look_seconds=LOOK_SECONDS)
    dispatcher.send = _FaultySender(dispatcher.send, faults)
    return dispatcher


class _FaultySender:
    """Sends events subject to the rules. Safe to use from any thread."""

    def __init__(self, send: Send, faults: ActiveFaults) -> None:
        self._send_as_it_is = send
        self._faults = faults
        self._sent: Counter[str] = Counter()
        self._changed = threading.Condition()

    def __call__(self, event: OutgoingEvent) -> Reply:
        action = self._faults.next_of_webhook(json.loads(event.body)["type"])
        if action is None:
            return self._send(event)
        time.sleep(action.latency_seconds)
        match action.webhook:
            case "lost":
                log.info("mock_webhook_lost", url=event.url)
                return Reply(status_code=ACCEPTED)
            case "doubled":
                self._send(event)
            case "reordered":
                self._await_next(event.url)
            case "forged":
                event = replace(event, secrets=[OTHER_SECRET])
            case "stale":
                event = replace(event, sent_at=event.sent_at - STALE_AGE)
        return self._send(event)

    def _send(self, event: OutgoingEvent) -> Reply:
        try:
            return self._send_as_it_is(event)
        finally:
            with self._changed:
                self._sent[event.url] += 1
                self._changed.notify_all()

    def _await_next(self, url: str) -> None:
        """Returns once another event was sent there, or after HOLD_SECONDS."""
        with self._changed:
            before = self._sent[url]
            self._changed.wait_for(lambda: self._sent[url] > before, timeout=HOLD_SECONDS)
