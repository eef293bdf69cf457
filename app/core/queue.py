"""Celery and the wake-ups that go through it.

A message carries nothing: it says that there is work, and the worker that takes it asks the database which. Every
unit of work (to prepare a render, to upscale a segment, to finish a render) is announced by one message when it
becomes ready. A lost message costs a pause until the sweeper announces the work again; a doubled one, a query.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from celery import Celery
from kombu.exceptions import OperationalError

from app.core.errors import Unavailable
from app.core.settings import Settings

WORK_TASK = "regen.work"
WORK_QUEUE = "regen.work"
SOCKET_TIMEOUT_SECONDS = 2.0

log = structlog.get_logger(__name__)


def make_celery(settings: Settings) -> Celery:
    """A Celery application on the configured broker. Nothing is connected yet."""
    celery = Celery("regen", broker=settings.resolved_broker_url, set_as_current=False)
    celery.conf.update(
        # Rows are the truth: a message is taken off the queue at once, and no result is kept anywhere.
        task_acks_late=False,
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        # A message waits in the broker, where any free worker finds it, never inside a busy worker.
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        task_default_queue=WORK_QUEUE,
        task_create_missing_queues=True,
        # A publish that cannot be made is given up soon; the sweeper announces the work again.
        task_publish_retry=False,
        broker_connection_timeout=SOCKET_TIMEOUT_SECONDS,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "socket_timeout": SOCKET_TIMEOUT_SECONDS,
            "socket_connect_timeout": SOCKET_TIMEOUT_SECONDS,
            "max_retries": 1,
            "interval_start": 0,
            "interval_step": 0.2,
        },
        # Concerns tasks that are acknowledged late, which ours are not; unset, Celery warns at every reconnection.
        worker_cancel_long_running_tasks_on_connection_loss=True,
        # Workers neither gossip nor watch each other: leases in the database tell who is alive.
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        task_serializer="json",
        accept_content=["json"],
    )
    return celery


def wake_workers(celery: Celery, *, units: int = 1) -> bool:
    """Announce `units` pieces of work. Call it after the commit that made them.

    Returns whether the broker took every message. Never raises for a broker that is away: what the rows say is
    found by the sweeper. Takes a few seconds at most.
    """
    try:
        with _connection(celery) as connection:
            for _number in range(units):
                celery.send_task(WORK_TASK, queue=WORK_QUEUE, connection=connection, retry=False)
    except Unavailable as error:
        log.warning("wake_up_failed", units=units, error=error.detail)
        return False
    return True


def waiting_messages(celery: Celery) -> int:
    """How many wake-ups lie in the queue. Raises Unavailable when the broker is away."""
    with _connection(celery) as connection, connection.channel() as channel:
        return int(channel.queue_declare(queue=WORK_QUEUE, passive=False).message_count)


def check_broker(celery: Celery) -> None:
    """Raises Unavailable when the broker does not answer. Tries once: whoever asks will ask again."""
    with _connection(celery) as connection:
        connection.ensure_connection(
            max_retries=1, interval_start=0, interval_step=0, timeout=SOCKET_TIMEOUT_SECONDS
        )


@contextmanager
def _connection(celery: Celery) -> Iterator[Any]:
    with celery.connection_for_write() as connection:
        try:
            yield connection
        except (OperationalError, *connection.connection_errors, *connection.channel_errors) as error:
            raise Unavailable("The broker cannot be reached just now.", detail=str(error)) from error
