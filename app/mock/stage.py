"""Where one render stands with the mock, and whether it is due to move on."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from app.mock.options import Pace, Transitions
from app.mock.rules import RenderFault
from app.renders.statuses import RenderStatus

# What moves pass on a clock that does not go by itself.
MOVE_STEP = timedelta(milliseconds=10)


@dataclass(kw_only=True)
class Stage:
    """`polls` are the times that it was looked at in its present status, `asked_at` the moment of the last of them."""

    status: RenderStatus
    created_at: datetime
    fault: RenderFault | None
    polls: int = 0
    moves: int = 0
    asked_at: datetime | None = None
    progress: float = 0.0
    clock: Callable[[], float] = time.monotonic
    since: float = field(default=0.0)

    def __post_init__(self) -> None:
        self.since = self.clock()

    @property
    def is_stuck(self) -> bool:
        return self.fault is not None and self.fault.holds(self.status)

    def poll(self, *, at: datetime) -> None:
        self.polls += 1
        self.asked_at = at

    def is_due(self, transitions: Transitions) -> bool:
        if self.is_stuck:
            return False
        match transitions.pace:
            case Pace.INSTANT:
                return True
            case Pace.POLLS:
                return self.polls > transitions.amount
            case Pace.SECONDS:
                return self.clock() - self.since >= transitions.amount

    def part_passed(self, transitions: Transitions) -> float:
        """How much of its present status it has behind it, from 0 to 1."""
        match transitions.pace:
            case Pace.INSTANT:
                return 0.0
            case Pace.POLLS:
                return min(1.0, self.polls / (transitions.amount + 1))
            case Pace.SECONDS:
                passed = self.clock() - self.since
                return min(1.0, passed / transitions.amount) if transitions.amount else 0.0

    def moment_of_move(self, transitions: Transitions) -> datetime:
        """When the move that is due happens, on a clock that does not go by itself."""
        if transitions.pace is Pace.POLLS and self.asked_at is not None:
            return self.asked_at
        step = timedelta(seconds=transitions.amount) if transitions.pace is Pace.SECONDS else MOVE_STEP
        return self.created_at + (self.moves + 1) * step

    def moved_to(self, status: RenderStatus) -> None:
        """The look that moved it shows it in its new status."""
        self.status = status
        self.moves += 1
        self.polls = min(self.polls, 1)
        self.progress = 0.0
        self.since = self.clock()
