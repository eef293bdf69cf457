"""A mock's parts, and what may be done to all of them at once."""

from dataclasses import dataclass, field

from app.http.resources import Resources
from app.mock import database as mock_database
from app.mock.driver import Driver
from app.mock.faults import Faults
from app.mock.options import MockOptions
from app.mock.recorder import Recorder
from app.mock.repeatable import Repeatable
from app.mock.storage import MockStorage
from app.platform import clock


@dataclass(frozen=True, kw_only=True)
class Running:
    """What there is while the mock serves."""

    resources: Resources
    storage: MockStorage
    driver: Driver


@dataclass(kw_only=True)
class Mock:
    """`options` are those of its start, `present` those in force."""

    options: MockOptions
    present: MockOptions
    repeatable: Repeatable
    faults: Faults
    recorder: Recorder = field(default_factory=Recorder)
    running: Running | None = None

    @classmethod
    def of(cls, options: MockOptions) -> "Mock":
        return cls(
            options=options,
            present=options,
            repeatable=Repeatable(seed=options.seed, start=options.clock),
            faults=Faults(seed=options.seed),
        )

    @property
    def driver(self) -> Driver:
        return self._parts.driver

    def begin_anew(self, options: MockOptions) -> None:
        """Forget everything: files, renders, rules, requests. Then the same requests get the same answers."""
        parts = self._parts
        with parts.driver.at_rest(transitions=options.transitions):
            mock_database.empty(parts.resources.database)
            parts.storage.empty()
            self.faults.restart(seed=options.seed)
            self.recorder.clear()
            self.repeatable.restart(seed=options.seed, start=options.clock)
            self.present = options
            self.fill(parts.resources)

    def fill(self, resources: Resources) -> None:
        moment = self.repeatable.start or clock.system_now()
        with self.repeatable.move("start", at=moment):
            mock_database.fill(resources.database, resources.secrets)

    @property
    def _parts(self) -> Running:
        if self.running is None:
            raise RuntimeError("the mock does not serve")
        return self.running
