"""The state of each of the mock's renders, and whether it is due for its next status."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from app.mock.fault_rules import RenderFault
from app.mock.faults import ActiveFaults
from app.mock.options import TransitionMode, Transitions
from app.renders.statuses import RenderStatus
from app.renders.tables import Render
from app.work.queries import Job

# The time between transitions on a clock that only requests move.
TRANSITION_STEP = timedelta(milliseconds=10)


@dataclass(kw_only=True)
class RenderState:
    """`polls` counts the polls in the present status; `polled_at` is the moment of the last one.

    `job` is the claimed unit of work that leads to the next status, once it is claimed.
    """

    status: RenderStatus
    created_at: datetime
    fault: RenderFault | None
    polls: int = 0
    transitions_made: int = 0
    polled_at: datetime | None = None
    progress: float = 0.0
    job: Job | None = None
    clock: Callable[[], float] = time.monotonic
    since: float = field(default=0.0)

    def __post_init__(self) -> None:
        self.since = self.clock()

    @property
    def is_stuck(self) -> bool:
        return self.fault is not None and self.fault.holds(self.status)

    def poll(self, *, at: datetime) -> None:
        self.polls += 1
        self.polled_at = at

    def is_due(self, transitions: Transitions) -> bool:
        if self.is_stuck:
            return False
        match transitions.mode:
            case TransitionMode.INSTANT:
                return True
            case TransitionMode.POLLS:
                return self.polls > transitions.amount
            case TransitionMode.SECONDS:
                return self.clock() - self.since >= transitions.amount

    def share_passed(self, transitions: Transitions) -> float:
        """The share of the present status that has passed, from 0 to 1."""
        match transitions.mode:
            case TransitionMode.INSTANT:
                return 0.0
            case TransitionMode.POLLS:
                return min(1.0, self.polls / (transitions.amount + 1))
            case TransitionMode.SECONDS:
                passed = self.clock() - self.since
                return min(1.0, passed / transitions.amount) if transitions.amount else 0.0

    def moment_of_transition(self, transitions: Transitions) -> datetime:
        """When the due transition happens, on a clock that only requests move."""
        if transitions.mode is TransitionMode.POLLS and self.polled_at is not None:
            return self.polled_at
        is_timed = transitions.mode is TransitionMode.SECONDS
        step = timedelta(seconds=transitions.amount) if is_timed else TRANSITION_STEP
        return self.created_at + (self.transitions_made + 1) * step

    def enter(self, status: RenderStatus) -> None:
        """The poll that made the transition due already shows the new status."""
        self.status = status
        self.transitions_made += 1
        self.polls = min(self.polls, 1)
        self.progress = 0.0
        self.since = self.clock()


class RenderStates(dict[str, RenderState]):
    """The states of all renders that have not ended, by id. Not safe for use from several threads."""

    def __init__(self, faults: ActiveFaults, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._faults = faults
        self._clock = clock

    def follow(self, renders: Sequence[Render]) -> None:
        """Takes the statuses from the rows of all renders that have not ended."""
        for render in renders:
            state = self.get(render.id)
            if state is None:
                fault = self._faults.take_render_fault(render.request_id)
                self[render.id] = RenderState(
                    status=render.status, created_at=render.created_at, fault=fault, clock=self._clock
                )
            elif state.status is not render.status:
                state.enter(render.status)
        for ended in self.keys() - {render.id for render in renders}:
            del self[ended]
