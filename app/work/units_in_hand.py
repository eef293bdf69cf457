"""The units of work that one worker has in hand: the segment that computes, the next, those that are being stored, and
beside them one render that is prepared and one that is finished."""

import math
import threading
import time
from collections.abc import Callable

from app.platform.progress import Progress, Stillness, current_progress, reporting_to
from app.platform.threads import background_thread
from app.platform.work_kinds import WorkKind
from app.work.queries import Job

POLL_SECONDS = 0.1


class UnitInHand:
    """One unit, from its claim to its report. `is_ending`: it leaves room for the next one of its kind."""

    def __init__(self, job: Job, progress: Progress) -> None:
        self.job = job
        self.progress = progress
        self.stillness = Stillness(progress)
        self.is_ending = False
        self.beats_seen = progress.beats


class UnitsInHand:
    """At most `most` segments and one unit of each other kind, each in a thread of its own; with 1, one unit in the
    thread that begins it.

    Another segment may be begun once all others are ending, so that one worker never claims more than one ahead.
    `begin` and the waits are for one thread, the loop's. Its progress moves while that of all units does: it stands
    still as soon as one of them hangs.
    """

    def __init__(self, *, most: int) -> None:
        self._most = most
        self._changed = threading.Condition()
        self.changes = 0
        self._units: tuple[UnitInHand, ...] = ()

    def __len__(self) -> int:
        return len(self._units)

    @property
    def units(self) -> tuple[UnitInHand, ...]:
        """The units, the longest still first."""
        return tuple(sorted(self._units, key=lambda unit: unit.stillness.seconds, reverse=True))

    @property
    def free_kinds(self) -> frozenset[WorkKind]:
        """The kinds of which another unit may be begun."""
        units = self._units
        if self._most == 1:
            return frozenset() if units else frozenset(WorkKind)
        segments = [unit for unit in units if unit.job.kind is WorkKind.UPSCALE]
        is_full = len(segments) == self._most or not all(unit.is_ending for unit in segments)
        others = {unit.job.kind for unit in units} - {WorkKind.UPSCALE}
        return frozenset(WorkKind) - others - ({WorkKind.UPSCALE} if is_full else set())

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
            background_thread(run, name=f"unit-{job.kind.value}").start()

    def end_soon(self, unit: UnitInHand) -> None:
        """The segment leaves room for another one; another unit has made segments ready."""
        if not (unit.is_ending and unit.job.kind is WorkKind.UPSCALE):
            unit.is_ending = True
            self._note(lambda: self._units)

    def wait_for_change(self, *, since: int, seconds: float = math.inf) -> None:
        """Until a unit has begun, has ended or is ending (until `changes` is another than `since`), or for so long."""
        until = time.monotonic() + seconds
        while self._units and time.monotonic() < until and not self._wait(lambda: self.changes != since):
            pass

    def wait_for_all(self) -> None:
        """Wait until no unit is in hand."""
        while not self._wait(lambda: not self._units):
            pass

    def _note(self, units: Callable[[], tuple[UnitInHand, ...]]) -> None:
        with self._changed:
            self._units = units()
            self.changes += 1
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
