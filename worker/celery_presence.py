"""A worker's presence in Celery's tools: its heartbeats, and answers to `celery inspect` and `celery status`.

The one thread of the solo pool runs units of work for hours, during which Celery's own parts for this would
be silent. This thread, with its own connection, is not. The work does not depend on it.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import structlog
from celery import Celery
from celery.exceptions import WorkerShutdown, WorkerTerminate
from celery.utils.collections import AttributeDict
from celery.utils.sysinfo import load_average
from celery.worker import control, state

from app.platform.threads import background_thread

HEARTBEAT_SECONDS = 2.0
POLL_SECONDS = 1.0
RECONNECT_SECONDS = 5.0

log = structlog.get_logger(__name__)


class CeleryPresence:
    """`consumer` is Celery's own, which commands ask; `shut_down` is called for `celery control shutdown`."""

    def __init__(self, celery: Celery, *, consumer: Any, shut_down: Callable[[], None]) -> None:
        self._celery = celery
        self._consumer = consumer
        self._shut_down = shut_down
        self._ended = threading.Event()
        self._thread = background_thread(self._run, name="celery-presence")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Reports that the worker is offline, if the broker accepts it soon."""
        self._ended.set()
        self._thread.join(POLL_SECONDS + HEARTBEAT_SECONDS)

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self._serve()
            except (WorkerShutdown, WorkerTerminate):
                self._shut_down()
                return
            except Exception as error:  # of the broker's driver, or of a command that came from it
                log.debug("celery_presence_interrupted", error=str(error))
                self._ended.wait(RECONNECT_SECONDS)

    def _serve(self) -> None:
        with self._celery.connection_for_read() as connection:
            name = self._consumer.hostname
            events = self._celery.events.Dispatcher(connection, hostname=name, buffer_while_offline=False)
            facts = {"app": self._celery, "hostname": name, "consumer": self._consumer, "tset": set}
            node = self._celery.control.mailbox.Node(
                name, state=AttributeDict(facts), handlers=control.Panel.data, channel=connection.channel()
            )
            listener = node.listen(callback=node.handle_message)
            beat_at = 0.0
            try:
                events.send("worker-online", **self._facts())
                while not self._ended.is_set():
                    if time.monotonic() >= beat_at:
                        events.send("worker-heartbeat", **self._facts())
                        beat_at = time.monotonic() + HEARTBEAT_SECONDS
                    with contextlib.suppress(socket.timeout):
                        connection.drain_events(timeout=POLL_SECONDS)
                events.send("worker-offline", **self._facts())
            finally:
                listener.cancel()

    def _facts(self) -> dict[str, object]:
        return {
            "freq": HEARTBEAT_SECONDS,
            "active": len(state.active_requests),
            "processed": state.all_total_count[0],
            "loadavg": load_average(),
            **state.SOFTWARE_INFO,
        }
