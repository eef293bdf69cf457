"""Users' webhook endpoints, their deliveries, and the secrets that sign events."""

import base64
import hmac
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from app.accounts.tables import User
from app.platform import clock
from app.platform.database import read_clock
from app.platform.deliveries import ask_again
from app.platform.errors import Conflict, NotFound, TooManyRequests
from app.platform.secrets import Secrets, new_id
from app.webhooks import outbox
from app.webhooks import queries as webhook_queries
from app.webhooks.statuses import WebhookEvent
from app.webhooks.tables import WebhookDelivery, WebhookEndpoint
from app.webhooks.urls import host_of

# For so long after a rotation the previous secret signs as well.
ROTATION_SECONDS = 24 * 3600
# Tests of one webhook, waiting at the same time.
MOST_TESTS = 5
TEST_RETRY_SECONDS = 60
SECRET_PREFIX = "whsec_"  # noqa: S105


@dataclass(frozen=True, kw_only=True)
class SigningSecrets:
    """The secrets that sign a user's events: `current`, and until `before_until` the one `before` as well."""

    current: str = field(repr=False)
    before: str | None = field(default=None, repr=False)
    before_until: datetime | None = None

    @property
    def valid(self) -> tuple[str, ...]:
        return (self.current,) if self.before is None else (self.current, self.before)


def create_endpoint(
    session: Session, *, user_id: str, url: str, events: Collection[WebhookEvent], enabled: bool, most: int
) -> WebhookEndpoint:
    """Add an endpoint. Raises Conflict when the user has `most` of them."""
    if webhook_queries.count_endpoints(session, user_id=user_id) >= most:
        raise Conflict(f"You have {most} webhooks, which is the maximum: remove one first.")
    now = read_clock(session)
    endpoint = WebhookEndpoint(
        id=new_id(),
        user_id=user_id,
        url=url,
        events=_in_order(events),
        created_at=now,
        disabled_at=None if enabled else now,
    )
    session.add(endpoint)
    session.flush()
    return endpoint


def find_endpoint(session: Session, *, endpoint_id: str, user_id: str, lock: bool = False) -> WebhookEndpoint:
    """The user's endpoint. Raises NotFound for an unknown one and another user's."""
    endpoint = webhook_queries.find_endpoint(session, endpoint_id=endpoint_id, user_id=user_id, lock=lock)
    if endpoint is None:
        raise NotFound("Webhook not found")
    return endpoint


def change_endpoint(
    session: Session,
    *,
    endpoint_id: str,
    user_id: str,
    url: str | None,
    events: Collection[WebhookEvent] | None,
    enabled: bool | None,
) -> WebhookEndpoint:
    """Change what is not None. Pending deliveries go to a new address, and end with a disabled one. Raises NotFound."""
    endpoint = find_endpoint(session, endpoint_id=endpoint_id, user_id=user_id, lock=True)
    if url is not None and url != endpoint.url:
        endpoint.url = url
        webhook_queries.redirect_deliveries(session, endpoint_id=endpoint.id, url=url, host=host_of(url))
    if events is not None:
        endpoint.events = _in_order(events)
    if enabled is True:
        endpoint.disabled_at = endpoint.disabled_reason = endpoint.failing_since = None
    if enabled is False and endpoint.disabled_at is None:
        endpoint.disabled_at = read_clock(session)
        webhook_queries.drop_deliveries(session, endpoint_id=endpoint.id)
    session.flush()
    return endpoint


def delete_endpoint(session: Session, *, endpoint_id: str, user_id: str) -> None:
    """Remove the endpoint and end its pending deliveries; past ones can still be looked up. Raises NotFound."""
    find_endpoint(session, endpoint_id=endpoint_id, user_id=user_id, lock=True)
    webhook_queries.drop_deliveries(session, endpoint_id=endpoint_id)
    webhook_queries.delete_endpoint(session, endpoint_id=endpoint_id)


def send_test(session: Session, *, endpoint_id: str, user_id: str) -> WebhookDelivery:
    """Add the delivery of a test event.

    Raises NotFound, Conflict when it is disabled, and TooManyRequests while MOST_TESTS are on their way to it.
    """
    endpoint = find_endpoint(session, endpoint_id=endpoint_id, user_id=user_id, lock=True)
    _require_enabled(endpoint)
    pending = webhook_queries.count_pending_tests(session, endpoint_id=endpoint.id)
    if pending >= MOST_TESTS:
        raise TooManyRequests(
            f"{pending} tests of this webhook have not been delivered yet. Wait for them, or correct its address.",
            retry_after_seconds=TEST_RETRY_SECONDS,
        )
    delivery_id = outbox.add_delivery(
        session,
        user_id=user_id,
        endpoint_id=endpoint.id,
        render_id=None,
        url=endpoint.url,
        event=WebhookEvent.TEST,
        facts={"data": {"webhook": {"id": endpoint.id}}},
    )
    return find_delivery(session, delivery_id=delivery_id, user_id=user_id)


def find_delivery(session: Session, *, delivery_id: str, user_id: str) -> WebhookDelivery:
    """The user's delivery. Raises NotFound for an unknown one and another user's."""
    delivery = webhook_queries.find_delivery(session, delivery_id=delivery_id, user_id=user_id)
    if delivery is None:
        raise NotFound("Webhook delivery not found")
    return delivery


def replay_delivery(session: Session, *, delivery_id: str, user_id: str) -> WebhookDelivery:
    """Make the delivery due now; its id and its attempts stay.

    Raises NotFound, and Conflict when its endpoint is disabled or was removed.
    """
    delivery = find_delivery(session, delivery_id=delivery_id, user_id=user_id)
    if delivery.endpoint_id is not None:
        endpoint = webhook_queries.find_endpoint(
            session, endpoint_id=delivery.endpoint_id, user_id=user_id, lock=True
        )
        if endpoint is None:
            raise Conflict("The delivery's webhook has been removed.")
        _require_enabled(endpoint)
        delivery.url, delivery.host = endpoint.url, host_of(endpoint.url)
        session.flush()
    ask_again(session, WebhookDelivery, delivery_id, ended_at=None)
    session.expire(delivery)
    return find_delivery(session, delivery_id=delivery_id, user_id=user_id)


def signing_secrets(session: Session, *, user_id: str, keys: Secrets) -> SigningSecrets:
    """The secrets that sign the user's events now."""
    return _secrets_of(webhook_queries.get_user(session, user_id=user_id), keys)


def rotate_secret(session: Session, *, user_id: str, keys: Secrets) -> SigningSecrets:
    """Make a new secret. The current one also signs for another day; an earlier one no longer does."""
    user = webhook_queries.lock_user(session, user_id=user_id)
    user.webhook_secret_generation += 1
    user.webhook_secret_rotated_at = read_clock(session)
    session.flush()
    return _secrets_of(user, keys)


def _secrets_of(user: User, keys: Secrets) -> SigningSecrets:
    """The user's secrets, which are derived from the server's secret and the number of rotations, and never stored."""
    generation, rotated_at = user.webhook_secret_generation, user.webhook_secret_rotated_at
    current = _secret(user.id, generation, keys)
    if rotated_at is None:
        return SigningSecrets(current=current)
    until = rotated_at + timedelta(seconds=ROTATION_SECONDS)
    if clock.now() >= until:
        return SigningSecrets(current=current)
    return SigningSecrets(current=current, before=_secret(user.id, generation - 1, keys), before_until=until)


def _secret(user_id: str, generation: int, keys: Secrets) -> str:
    secret = hmac.digest(keys.webhook_key, f"{user_id}:{generation}".encode(), "sha256")
    return SECRET_PREFIX + base64.b64encode(secret).decode()


def _require_enabled(endpoint: WebhookEndpoint) -> None:
    if endpoint.disabled_at is not None:
        raise Conflict("The webhook is disabled: enable it first.")


def _in_order(events: Collection[WebhookEvent]) -> list[str]:
    return [event.value for event in WebhookEvent if event in events]
