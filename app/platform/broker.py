"""Who is told that there is work: one contract, whatever stands behind it."""

from typing import Protocol

from app.platform.settings import Settings
from app.platform.work_kinds import WorkQueue


class Broker(Protocol):
    """Wakes workers. Nothing that it says or forgets matters to what the rows say."""

    def wake(self, queue: WorkQueue) -> None:
        """Wake an idle worker of the queue. Never raises for a broker that is away; takes a few seconds at most."""

    def waiting(self, queue: WorkQueue) -> int:
        """How many wake-ups wait. Raises what `check` raises."""

    def check(self) -> None:
        """Raises Unavailable when it does not answer, ConfigurationError when it does not let us in."""

    def close(self) -> None:
        """No more is asked of it."""


def open_broker(settings: Settings) -> Broker:
    """The configured one. Nothing is connected yet. Raises ConfigurationError for an address that cannot be one."""
    # Loading Celery takes a while.
    from app.platform.queue import CeleryBroker

    return CeleryBroker(settings)
