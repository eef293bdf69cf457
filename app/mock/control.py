"""A mock's parts, and how they are reset together."""

from dataclasses import dataclass, field
from datetime import timedelta

from app.http.resources import Resources
from app.mock import database as mock_database
from app.mock.driver import MockDriver
from app.mock.faults import ActiveFaults
from app.mock.options import MockOptions
from app.mock.recorder import Log, ReceivedRequest
from app.mock.repeatable import Repeatable
from app.mock.webhooks import SentWebhook
from app.platform import clock
from app.platform.storage.contract import delete_under


@dataclass(kw_only=True)
class Mock:
    """`initial_options` are those of its start, `options` the present ones.

    `resources` and `driver` exist while it serves.
    """

    initial_options: MockOptions
    options: MockOptions
    repeatable: Repeatable
    faults: ActiveFaults
    requests: Log[ReceivedRequest] = field(default_factory=Log)
    webhooks: Log[SentWebhook] = field(default_factory=Log)
    resources: Resources = field(init=False)
    driver: MockDriver = field(init=False)

    @classmethod
    def from_options(cls, options: MockOptions) -> "Mock":
        return cls(
            initial_options=options,
            options=options,
            repeatable=Repeatable(seed=options.seed, start=options.clock),
            faults=ActiveFaults(seed=options.seed),
        )

    def reset(self, options: MockOptions) -> None:
        """Removes all files, renders, rules, requests and webhooks. Then the same requests get the same answers."""
        with self.driver.paused(transitions=options.transitions):
            mock_database.empty(self.resources.database)
            delete_under(self.resources.storage, "")
            self.faults.restart(seed=options.seed)
            self.requests.clear()
            self.webhooks.clear()
            self.repeatable.restart(seed=options.seed, start=options.clock)
            self.options = options
            self.fill()
            self.resources.forecast.forget()

    def advance(self, by: timedelta) -> None:
        """Moves the clock forward without a reset: links and keys expire, retries and renders become due."""
        self.driver.settle()  # a new render has its time from before
        self.repeatable.advance(by)
        self.driver.clock_has_moved()
        self.resources.forecast.forget()

    def fill(self) -> None:
        """Adds the user and the keys to an empty database."""
        moment = self.repeatable.start or clock.system_now()
        with self.repeatable.scope("start", at=moment):
            mock_database.fill(self.resources.database, self.resources.secrets)
