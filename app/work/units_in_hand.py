"""The units of work that one worker has in hand: the computing one, the next one, and those being stored."""

import threading
from collections.abc import Callable
from contextvars import copy_context

from app.platform.progress import Progress, Stillness, current_progress, reporting_to
from app.work.queries import Job

POLL_SECONDS = 0.1


class UnitInHand:
    """One unit, from its claim to its report. `is_ending`: it leaves room for the next one."""

    def __init__(self, job: Job, progress: Progress) -> None:
        self.job = job
        self.progress = progress
        self.stillness = Stillness(progress)
        self.is_ending = False
        self.beats_seen = progress.beats


class UnitsInHand:
    """At most `most` units, each in its own thread; with 1, in the thread that begins it.

    Another unit may begin once all others are ending, so that one worker never claims more than one ahead.
    `begin` and the waits are for one thread, the loop's. Its progress moves while that of all units does: it
    stalls as soon as one of them hangs.
    """

    def __init__(self, *, most: int) -> None:
        self._most = most
        self._changed = threading.Condition()
        self._changes = 0
        self._units: tuple[UnitInHand, ...] = ()

    def __len__(self) -> int:
        return len(self._units)

    @property
    def units(self) -> tuple[UnitInHand, ...]:
        """The units, the longest still first."""
        return tuple(sorted(self._units, key=lambda unit: unit.stillness.seconds, reverse=True))

    @property
    def has_room(self) -> bool:
        units = self._units
        return len(units) < self._most and all(unit.is_ending for unit in units)

    def begin(self, job: Job, work: Callable[[UnitInHand], None]) -> None:
        """Runs the unit. `work` must not raise."""
        unit = UnitInHand(job, current_progress() if self._most == 1 else Progress())
        self._note(lambda: (*self._units, unit))

        def run() -> None:
            try:
                with reporting_to(unit.progress):
                    work(unit)
            finally:
                self._note(lambda: tuple(other for other in self._units if other is not unit))

        if self._most == 1:
            run()
        else:
            # A daemon thread: the process must be able to end while a unit hangs.
            threading.Thread(
                target=copy_context().run, args=(run,), name=f"unit-{job.kind.value}", daemon=True
            ).start()

    def end_soon(self, unit: UnitInHand) -> None:
        """The unit permits another one."""
        if not unit.is_ending:
            unit.is_ending = True
            self._note(lambda: self._units)

    def wait_for_change(self) -> None:
        """Wait until a unit has ended or is ending."""
        changes = self._changes
        while self._units and not self._wait(lambda: self._changes != changes):
            pass

    def wait_for_all(self) -> None:
        """Wait until no unit is in hand."""
        while not self._wait(lambda: not self._units):
            pass

    def _note(self, units: Callable[[], tuple[UnitInHand, ...]]) -> None:
        with self._changed:
            self._units = units()
            self._changes += 1
            self._changed.notify_all()

    def _wait(self, condition: Callable[[], bool]) -> bool:
        with self._changed:
            is_over = self._changed.wait_for(condition, timeout=POLL_SECONDS)
        units, work = self._units, current_progress()
        for unit in units:
            unit.stillness.tick(POLL_SECONDS)
        work.allowed_seconds = max((unit.progress.allowed_seconds for unit in units), default=0.0)
        if all(unit.progress.beats != unit.beats_seen for unit in units):
            for unit in units:
                unit.beats_seen = unit.progress.beats
            work.beat()
        return is_over
