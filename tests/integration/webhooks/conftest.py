"""Dispatchers on a database of a test's own, SQLite and PostgreSQL in turn, and a receiver on loopback."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from sqlalchemy import select, update

from app.accounts import queries as account_queries
from app.files.tables import File
from app.platform.database import Database, database_now
from app.platform.secrets import Secrets, new_id
from app.platform.settings import Settings
from app.renders.tables import Render
from app.webhooks import outbox
from app.webhooks import queries as webhook_queries
from app.webhooks import service as webhook_service
from app.webhooks.dispatcher import WebhookDispatcher
from app.webhooks.statuses import RENDER_EVENTS, WebhookEvent
from app.webhooks.tables import WebhookAttempt, WebhookDelivery, WebhookEndpoint
from tests.integration.conftest import OpenDispatcher
from tests.integration.rows import a_render
from tests.servers.process import wait_until
from tests.servers.receiver import Receiver, receiving

WAIT_SECONDS = 30.0


class Webhooks:
    """What a test does with them. All are one user's."""

    def __init__(self, database: Database, file: File, keys: Secrets) -> None:
        self.database = database
        self.user_id = file.user_id
        self.keys = keys
        self._file = file

    def add_endpoint(self, url: str, *, events: tuple[WebhookEvent, ...] = RENDER_EVENTS) -> str:
        with self.database.write() as session:
            return webhook_service.create_endpoint(
                session, user_id=self.user_id, url=url, events=events, enabled=True, most=20
            ).id

    def add_render(self, *, webhook_url: str | None = None) -> str:
        with self.database.write() as session:
            return a_render(session, session.merge(self._file), webhook_url=webhook_url).id

    def add_user(self) -> str:
        with self.database.write() as session:
            return account_queries.add_user(session, user_id=new_id(), name=new_id()).id

    def add_delivery(self, url: str, *, endpoint_id: str | None = None, user_id: str | None = None) -> str:
        """A test event on its way."""
        with self.database.write() as session:
            return outbox.add_delivery(
                session,
                user_id=user_id or self.user_id,
                endpoint_id=endpoint_id,
                render_id=None,
                url=url,
                event=WebhookEvent.TEST,
                facts={},
            )

    def delivery(self, delivery_id: str) -> WebhookDelivery:
        with self.database.read() as session:
            return session.get_one(WebhookDelivery, delivery_id)

    def deliveries(self) -> list[WebhookDelivery]:
        with self.database.read() as session:
            return list(session.scalars(select(WebhookDelivery)))

    def endpoint(self, endpoint_id: str) -> WebhookEndpoint:
        with self.database.read() as session:
            return session.get_one(WebhookEndpoint, endpoint_id)

    def attempts(self, delivery_id: str) -> list[WebhookAttempt]:
        with self.database.read() as session:
            return list(webhook_queries.attempts_of(session, delivery_id=delivery_id))

    def secret(self) -> str:
        with self.database.read() as session:
            return webhook_service.signing_secrets(session, user_id=self.user_id, keys=self.keys).current

    def let_time_pass(self) -> None:
        """Whatever rests, or is in the hands of who died, is due."""
        with self.database.write() as session:
            session.execute(
                update(WebhookDelivery)
                .where(WebhookDelivery.retry_at.is_not(None))
                .values(retry_at=database_now(plus_seconds=-1))
            )

    def wait_for(self, delivery_id: str, **columns: object) -> WebhookDelivery:
        """The delivery, once it has these values."""

        def has_them() -> bool:
            row = self.delivery(delivery_id)
            return all(getattr(row, name) == value for name, value in columns.items())

        wait_until(has_them, seconds=WAIT_SECONDS, what=f"the delivery has {columns}")
        return self.delivery(delivery_id)

    def wait_for_attempt(self, delivery_id: str, number: int) -> WebhookAttempt:
        """How the attempt of that number went."""
        wait_until(
            lambda: any(attempt.number == number for attempt in self.attempts(delivery_id)),
            seconds=WAIT_SECONDS,
            what=f"attempt {number} has ended",
        )
        return next(attempt for attempt in self.attempts(delivery_id) if attempt.number == number)


@pytest.fixture
def hooks(database: Database, file: File, settings: Settings) -> Webhooks:
    return Webhooks(database, file, Secrets.load(settings))


@pytest.fixture
def make_dispatcher(open_dispatcher: OpenDispatcher) -> Callable[..., WebhookDispatcher]:
    def make(*, base_url: str | None = "http://regen.test", **more: Any) -> WebhookDispatcher:
        return open_dispatcher(partial(WebhookDispatcher, base_url=base_url, look_seconds=0.05), **more)

    return make


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def render_row(database: Database) -> Callable[[str], Render]:
    def read(render_id: str) -> Render:
        with database.read() as session:
            return session.get_one(Render, render_id)

    return read
