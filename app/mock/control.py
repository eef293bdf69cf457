"""A mock's parts, and how they are reset together."""

from dataclasses import dataclass, field

from app.http.resources import Resources
from app.mock import database as mock_database
from app.mock.driver import MockDriver
from app.mock.faults import ActiveFaults
from app.mock.options import MockOptions
from app.mock.recorder import RequestRecorder
from app.mock.repeatable import Repeatable
from app.mock.storage import MockStorage
from app.platform import clock


@dataclass(frozen=True, kw_only=True)
class OpenMock:
    """What exists while the mock serves."""

    resources: Resources
    storage: MockStorage
    driver: MockDriver


@dataclass(kw_only=True)
class Mock:
    """`initial_options` are those of its start, `options` those in force."""

    initial_options: MockOptions
    options: MockOptions
    repeatable: Repeatable
    faults: ActiveFaults
    recorder: RequestRecorder = field(default_factory=RequestRecorder)
    opened: OpenMock | None = None

    @classmethod
    def from_options(cls, options: MockOptions) -> "Mock":
        return cls(
            initial_options=options,
            options=options,
            repeatable=Repeatable(seed=options.seed, start=options.clock),
            faults=ActiveFaults(seed=options.seed),
        )

    @property
    def driver(self) -> MockDriver:
        return self._opened.driver

    def reset(self, options: MockOptions) -> None:
        """Removes all files, renders, rules and requests. Then the same requests get the same answers."""
        with self._opened.driver.paused(transitions=options.transitions):
            mock_database.empty(self._opened.resources.database)
            self._opened.storage.empty()
            self.faults.restart(seed=options.seed)
            self.recorder.clear()
            self.repeatable.restart(seed=options.seed, start=options.clock)
            self.options = options
            self.fill(self._opened.resources)

    def fill(self, resources: Resources) -> None:
        moment = self.repeatable.start or clock.system_now()
        with self.repeatable.scope("start", at=moment):
            mock_database.fill(resources.database, resources.secrets)

    @property
    def _opened(self) -> OpenMock:
        if self.opened is None:
            raise RuntimeError("the mock does not serve")
        return self.opened
