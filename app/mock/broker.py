"""The mock's broker: there is one worker, in this process, and no message goes anywhere."""

import threading

from app.mock.driver import Driver
from app.platform.work_kinds import WorkQueue


class DriverAsBroker:
    """See Broker. Closing it stops the driver, while the database is still open."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self._driver: Driver | None = None

    def start(self, driver: Driver) -> None:
        self._driver = driver
        driver.start()

    def wake(self, queue: WorkQueue) -> None:
        if self._driver is not None:
            self._driver.look()

    def waiting(self, queue: WorkQueue) -> int:
        return 0

    def check(self) -> None:
        """Nothing is between it and the driver that could break."""

    def close(self) -> None:
        if self._driver is not None:
            self._driver.stop()
