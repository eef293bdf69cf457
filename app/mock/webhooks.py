"""The mock's webhooks: sent by the server's own dispatcher, soon, unless a rule loses or doubles them."""

import json
import time

import structlog

from app.http.resources import Resources
from app.mock.faults import ActiveFaults
from app.webhooks.dispatcher import Reply, WebhookDispatcher
from app.webhooks.events import OutgoingEvent

LOOK_SECONDS = 0.1
ACCEPTED = 200

log = structlog.get_logger(__name__)


def make_dispatcher(resources: Resources, *, base_url: str | None, faults: ActiveFaults) -> WebhookDispatcher:
    dispatcher = WebhookDispatcher(resources, base_url=base_url, look_seconds=LOOK_SECONDS)
    send = dispatcher.send

    def send_or_not(event: OutgoingEvent) -> Reply:
        action = faults.next_of_webhook(json.loads(event.body)["type"])
        if action is None:
            return send(event)
        time.sleep(action.latency_seconds)
        if action.webhook == "lost":
            log.info("mock_webhook_lost", url=event.url)
            return Reply(status_code=ACCEPTED)
        if action.webhook == "doubled":
            send(event)
        return send(event)

    dispatcher.send = send_or_not
    return dispatcher
