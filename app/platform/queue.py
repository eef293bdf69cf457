"""Celery, and the wake-ups that it carries.

A message is empty: it wakes one idle worker of its queue, which claims units of work from the database until there is
none left. A busy worker needs no message. A lost message delays the work until a worker's sweeper announces it again; a
duplicate costs one query.
"""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import structlog
from celery import Celery
from kombu.connection import Connection
from kombu.exceptions import LimitExceeded, OperationalError
from redis.exceptions import AuthenticationError, NoPermissionError

from app.platform.errors import ConfigurationError, RegenError, Unavailable, causes
from app.platform.settings import Settings
from app.platform.work_kinds import WorkQueue

WORK_TASK = "regen.work"
# The one queue of version 0.1: during a rolling upgrade its servers still announce work there.
OLD_QUEUE = "regen.work"
# The maximum number of messages in a queue: more would not wake further workers.
MOST_WAKE_UPS = 100

SOCKET_TIMEOUT_SECONDS = 2.0
# A consumer of an unresponsive broker reconnects after at most two of these intervals and one second.
HEALTH_CHECK_SECONDS = 5
POOLED_CONNECTIONS = 10
# While the broker hangs, callers that wait for it hold the connections; further callers give up after this time.
POOL_WAIT_SECONDS = 0.2

TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")

log = structlog.get_logger(__name__)


class OwnPoolCelery(Celery):  # type: ignore[misc]
    """A Celery with its own pool: Celery shares one among all applications with the same URL, whatever their TLS."""

    @cached_property
    def pool(self) -> Any:
        return self.connection_for_write().Pool(POOLED_CONNECTIONS)

    def close(self) -> None:
        self.pool.force_close_all()
        super().close()


class CeleryBroker:
    """See Broker. Celery on the configured Redis or Valkey server."""

    def __init__(self, settings: Settings) -> None:
        self._celery = make_celery(settings)

    def wake(self, queue: WorkQueue) -> None:
        wake_workers(self._celery, queue)

    def waiting(self, queue: WorkQueue) -> int:
        return waiting_messages(self._celery, queue)

    def check(self) -> None:
        check_broker(self._celery)

    def close(self) -> None:
        self._celery.close()


def queue_name(queue: WorkQueue) -> str:
    """The queue's name in the broker."""
    return f"regen.{queue.value}"


def make_celery(settings: Settings) -> Celery:
    """A Celery application on the configured broker, not connected yet.

    Raises ConfigurationError for an invalid REGEN_BROKER_URL.
    """
    url = settings.resolved_broker_url
    celery = OwnPoolCelery("regen", broker=url, set_as_current=False)
    celery.conf.update(
        # The database holds the state: a message leaves the queue at once, and no result is stored.
        task_acks_late=False,
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        # A message waits in the broker for any idle worker, never inside a busy worker.
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        task_default_queue=queue_name(WorkQueue.CPU),
        task_create_missing_queues=True,
        # A failing publish is given up soon; the sweeper announces the work again.
        task_publish_retry=False,
        broker_connection_timeout=SOCKET_TIMEOUT_SECONDS,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # By default Celery does not verify the server's certificate. Parameters in the URL take precedence.
        broker_use_ssl={"ssl_cert_reqs": ssl.CERT_REQUIRED} if url.startswith("rediss:") else None,
        broker_transport_options={
            # With emulated acknowledgements, a worker whose acknowledgement gets no answer takes no further message.
            "ack_emulation": False,
            "socket_timeout": SOCKET_TIMEOUT_SECONDS,
            "socket_connect_timeout": SOCKET_TIMEOUT_SECONDS,
            "socket_keepalive": True,
            "health_check_interval": HEALTH_CHECK_SECONDS,
            "max_retries": 1,
            "interval_start": 0,
            "interval_step": 0.2,
        },
        # Affects only tasks with late acknowledgement; unset, Celery warns at every reconnection.
        worker_cancel_long_running_tasks_on_connection_loss=True,
        # For Flower and its like. Workers themselves do not monitor each other: leases in the database show which live.
        worker_send_task_events=True,
        # Answered by a thread of the worker's own: see worker/celery_presence.py.
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        task_serializer="json",
        accept_content=["json"],
    )
    _check_address(celery, url)
    return celery


def wake_workers(celery: Celery, queue: WorkQueue, *, units: int = 1) -> bool:
    """Wake up to `units` idle workers of the queue. Call it after the commit that made that many units ready.

    Returns whether the broker accepted every useful message. Does not raise for an unreachable broker, because the
    sweeper announces the work again. Takes a few seconds at most.
    """
    try:
        with _connection(celery) as connection:
            for _number in range(min(units, MOST_WAKE_UPS - _depth(connection, queue))):
                celery.send_task(WORK_TASK, queue=queue_name(queue), connection=connection, retry=False)
    except RegenError as error:
        log.warning(
            "wake_up_failed", queue=queue.value, units=units, error=error.message, detail=error.detail
        )
        return False
    return True


def waiting_messages(celery: Celery, queue: WorkQueue) -> int:
    """The number of wake-ups in the queue. Raises as `check_broker` does."""
    with _connection(celery) as connection:
        return _depth(connection, queue)


def check_broker(celery: Celery) -> None:
    """Raises Unavailable when the broker does not answer, ConfigurationError when it refuses the credentials or TLS.

    Tries once, and takes a few seconds at most.
    """
    waiting_messages(celery, WorkQueue.CPU)


def _depth(connection: Connection, queue: WorkQueue) -> int:
    channel: Any = connection.default_channel
    return int(channel.queue_declare(queue=queue_name(queue), passive=False).message_count)


@contextmanager
def _connection(celery: Celery) -> Iterator[Connection]:
    """A connection from the pool; a broken one is closed. Raises as `check_broker` does."""
    try:
        with celery.pool.acquire(block=True, timeout=POOL_WAIT_SECONDS) as connection:
            yield connection
    except LimitExceeded as error:
        raise Unavailable(
            "The broker cannot be reached just now.", detail="every connection waits for an answer"
        ) from error
    except _errors(celery) as error:
        if reason := _refusal(error):
            raise ConfigurationError(reason, detail=str(error)) from error
        raise Unavailable("The broker cannot be reached just now.", detail=str(error)) from error


def _errors(celery: Celery) -> tuple[type[Exception], ...]:
    connection: Any = celery.connection_for_write()
    return (OperationalError, *connection.connection_errors, *connection.channel_errors)


def _refusal(error: BaseException) -> str | None:
    """A sentence for a refusal that another attempt does not change, else None."""
    for cause in causes(error):
        if isinstance(cause, AuthenticationError | NoPermissionError):
            return (
                "The broker refuses the password or user: check REGEN_BROKER_PASSWORD and REGEN_BROKER_URL."
            )
        if isinstance(cause, ssl.SSLCertVerificationError):
            return (
                "The broker's certificate is not trusted: add its authority's certificate file to REGEN_BROKER_URL "
                "as ?ssl_ca_certs=/path, or correct the host name."
            )
    return None


def _check_address(celery: Celery, url: str) -> None:
    try:
        parts = urlsplit(url)
        if parts.scheme != "redis+socket":
            int(parts.path.strip("/") or 0)
        celery.connection_for_write()
        for name, (path, *_) in parse_qs(parts.query).items():
            if name in TLS_FILES:
                Path(path).open().close()
    except OSError as error:
        raise ConfigurationError(
            f"{error.filename}, named in REGEN_BROKER_URL, cannot be read: {error.strerror}."
        ) from error
    except (ValueError, KeyError):
        # Their messages may quote a password.
        raise ConfigurationError(
            "REGEN_BROKER_URL is invalid: it must look like redis://user:password@host:6379/0, with characters such as "
            "/ or @ in a password percent-encoded."
        ) from None
