"""Webhook endpoints, their secrets and their deliveries."""

from http import HTTPStatus
from typing import Annotated

from fastapi import Query, Response

from app.accounts.scopes import Scope
from app.http.dependencies import (
    IdempotencyDependency,
    PageDependency,
    PublicUrlDependency,
    ResourcesDependency,
    UserDependency,
)
from app.http.errors import documented
from app.http.openapi import LOCATION
from app.http.resources import Resources
from app.http.router import BodyRouter
from app.platform.errors import Forbidden
from app.webhooks import queries as webhook_queries
from app.webhooks import service as webhook_service
from app.webhooks.schemas import (
    Webhook,
    WebhookBody,
    WebhookChange,
    WebhookDeliveriesBody,
    WebhookDelivery,
    WebhookDeliveryBody,
    WebhookRequest,
    WebhooksBody,
    WebhookSecret,
    WebhookSecretBody,
)
from app.webhooks.statuses import DeliveryStatus
from app.webhooks.urls import parse_webhook_url, require_permitted

router = BodyRouter(tags=["webhooks"])


@router.get("/v1/webhooks")
def list_webhooks(user: UserDependency, resources: ResourcesDependency, page: PageDependency) -> WebhooksBody:
    """Your webhooks, the newest first."""
    with resources.database.read() as session:
        found = webhook_queries.list_endpoints(session, user_id=user.id, limit=page.limit, cursor=page.cursor)
    return WebhooksBody(webhooks=[Webhook.of(row) for row in found.rows], next_cursor=found.cursor)


@router.post("/v1/webhooks", responses={200: LOCATION, **documented(409)})
def create_webhook(
    asked: WebhookRequest,
    response: Response,
    user: UserDependency,
    resources: ResourcesDependency,
    base_url: PublicUrlDependency,
    idempotent: IdempotencyDependency,
) -> WebhookBody:
    """Add a webhook: an address that receives events of your renders from now on."""
    _check_url(asked.url, resources)
    idempotent.content.append(asked.model_dump(mode="json"))
    with resources.database.write() as session:
        made_id = idempotent.lookup(session, lock=True)
        if made_id is None:
            endpoint = webhook_service.create_endpoint(
                session,
                user_id=user.id,
                url=asked.url,
                events=asked.events,
                enabled=asked.enabled,
                most=resources.settings.max_webhooks_per_user,
            )
            idempotent.record(session, made_id=endpoint.id)
        else:
            endpoint = webhook_service.find_endpoint(session, endpoint_id=made_id, user_id=user.id)
    response.headers["Location"] = f"{base_url}/v1/webhooks/{endpoint.id}"
    return WebhookBody(webhook=Webhook.of(endpoint))


# Before the routes with an id, which would match `secret`.
@router.get("/v1/webhooks/secret")
def get_webhook_secret(user: UserDependency, resources: ResourcesDependency) -> WebhookSecretBody:
    """The secret that signs your events. The key needs the scope `write`, because the secret permits signing."""
    if Scope.WRITE not in user.scopes:
        raise Forbidden("This needs a key with the scope `write`, which this one lacks.")
    with resources.database.read() as session:
        found = webhook_service.signing_secrets(session, user_id=user.id, keys=resources.secrets)
    return WebhookSecretBody(secret=WebhookSecret.of(found))


@router.post("/v1/webhooks/secret/rotate", responses=documented(409))
def rotate_webhook_secret(
    user: UserDependency, resources: ResourcesDependency, idempotent: IdempotencyDependency
) -> WebhookSecretBody:
    """Make a new secret. For a day both secrets sign events, so that receivers can switch."""
    with resources.database.write() as session:
        if idempotent.lookup(session, lock=True) is None:
            secrets = webhook_service.rotate_secret(session, user_id=user.id, keys=resources.secrets)
            idempotent.record(session, made_id=user.id)
        else:
            secrets = webhook_service.signing_secrets(session, user_id=user.id, keys=resources.secrets)
    return WebhookSecretBody(secret=WebhookSecret.of(secrets))


@router.get("/v1/webhooks/{webhook_id}", responses=documented(404))
def get_webhook(webhook_id: str, user: UserDependency, resources: ResourcesDependency) -> WebhookBody:
    """A webhook of yours."""
    with resources.database.read() as session:
        endpoint = webhook_service.find_endpoint(session, endpoint_id=webhook_id, user_id=user.id)
    return WebhookBody(webhook=Webhook.of(endpoint))


@router.patch("/v1/webhooks/{webhook_id}", responses=documented(404))
def update_webhook(
    webhook_id: str, asked: WebhookChange, user: UserDependency, resources: ResourcesDependency
) -> WebhookBody:
    """Change a webhook of yours. Waiting events go to its new address; a disabled webhook receives no more."""
    if asked.url is not None:
        _check_url(asked.url, resources)
    with resources.database.write() as session:
        endpoint = webhook_service.change_endpoint(
            session,
            endpoint_id=webhook_id,
            user_id=user.id,
            url=asked.url,
            events=asked.events,
            enabled=asked.enabled,
        )
    return WebhookBody(webhook=Webhook.of(endpoint))


@router.delete(
    "/v1/webhooks/{webhook_id}",
    status_code=HTTPStatus.NO_CONTENT,
    responses=documented(404),
)
def delete_webhook(webhook_id: str, user: UserDependency, resources: ResourcesDependency) -> Response:
    """Remove a webhook of yours. No more events are sent to it."""
    with resources.database.write() as session:
        webhook_service.delete_endpoint(session, endpoint_id=webhook_id, user_id=user.id)
    return Response(status_code=HTTPStatus.NO_CONTENT)


@router.post("/v1/webhooks/{webhook_id}/test", responses={200: LOCATION, **documented(404, 409)})
def send_webhook_test(
    webhook_id: str,
    response: Response,
    user: UserDependency,
    resources: ResourcesDependency,
    base_url: PublicUrlDependency,
    idempotent: IdempotencyDependency,
) -> WebhookDeliveryBody:
    """Send a `webhook.test` event to a webhook of yours, whatever it has subscribed to."""
    with resources.database.write() as session:
        made_id = idempotent.lookup(session, lock=True)
        if made_id is None:
            delivery = webhook_service.send_test(session, endpoint_id=webhook_id, user_id=user.id)
            idempotent.record(session, made_id=delivery.id)
        else:
            delivery = webhook_service.find_delivery(session, delivery_id=made_id, user_id=user.id)
        attempts = webhook_queries.attempts_of(session, delivery_id=delivery.id)
    response.headers["Location"] = f"{base_url}/v1/webhook-deliveries/{delivery.id}"
    return WebhookDeliveryBody(delivery=WebhookDelivery.of(delivery, attempts=attempts))


@router.get("/v1/webhook-deliveries")
def list_webhook_deliveries(
    user: UserDependency,
    resources: ResourcesDependency,
    page: PageDependency,
    render_id: Annotated[
        str | None,
        Query(max_length=32, pattern="^[A-Za-z0-9]+$", description="Only deliveries for this render."),
    ] = None,
    status: Annotated[DeliveryStatus | None, Query(description="Only deliveries with this status.")] = None,
) -> WebhookDeliveriesBody:
    """Sent and waiting events of your webhooks, the newest first. Kept for 30 days after their end."""
    with resources.database.read() as session:
        found = webhook_queries.list_deliveries(
            session,
            user_id=user.id,
            limit=page.limit,
            cursor=page.cursor,
            render_id=render_id,
            status=status,
        )
    return WebhookDeliveriesBody(
        deliveries=[WebhookDelivery.of(row) for row in found.rows], next_cursor=found.cursor
    )


@router.get("/v1/webhook-deliveries/{delivery_id}", responses=documented(404))
def get_webhook_delivery(
    delivery_id: str, user: UserDependency, resources: ResourcesDependency
) -> WebhookDeliveryBody:
    """One event on its way to one webhook of yours, with every attempt."""
    with resources.database.read() as session:
        delivery = webhook_service.find_delivery(session, delivery_id=delivery_id, user_id=user.id)
        attempts = webhook_queries.attempts_of(session, delivery_id=delivery.id)
    return WebhookDeliveryBody(delivery=WebhookDelivery.of(delivery, attempts=attempts))


@router.post("/v1/webhook-deliveries/{delivery_id}/replay", responses=documented(404, 409))
def replay_webhook_delivery(
    delivery_id: str, user: UserDependency, resources: ResourcesDependency
) -> WebhookDeliveryBody:
    """Send an event again now, under the same `webhook-id`, whatever its outcome was."""
    with resources.database.write() as session:
        delivery = webhook_service.replay_delivery(session, delivery_id=delivery_id, user_id=user.id)
        attempts = webhook_queries.attempts_of(session, delivery_id=delivery.id)
    return WebhookDeliveryBody(delivery=WebhookDelivery.of(delivery, attempts=attempts))


def _check_url(url: str, resources: Resources) -> None:
    parse_webhook_url(url, field="url")
    require_permitted(url, allowed_networks=resources.settings.outbound_allowed_networks, field="url")
