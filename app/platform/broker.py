"""The broker contract: wake-ups for workers."""

from typing import Protocol

from app.platform.settings import Settings
from app.platform.work_kinds import WorkQueue


class Broker(Protocol):
    """Wakes workers. The rows do not depend on it: a lost wake-up only delays work."""

    def wake(self, queue: WorkQueue) -> None:
        """Wake an idle worker of the queue. Does not raise for an unreachable broker; takes a few seconds at most."""

    def waiting(self, queue: WorkQueue) -> int:
        """The number of wake-ups in the queue. Raises as `check` does."""

    def check(self) -> None:
        """Raises Unavailable when it does not answer, ConfigurationError when it refuses the connection."""

    def close(self) -> None:
        """Close its connections."""


def open_broker(settings: Settings) -> Broker:
    """The configured broker, not connected yet. Raises ConfigurationError for an invalid REGEN_BROKER_URL."""
    # Importing Celery is slow.
    from app.platform.queue import CeleryBroker

    return CeleryBroker(settings)
