"""What a render's state is to somebody who watches it: which event comes next, and its id.

The id says all of the state that events tell. So nothing is kept: whichever process a client comes back to knows from
the id that it brings along what it has seen.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from app.renders.service import RenderView
from app.renders.statuses import RenderStatus
from app.renders.streams import RenderSnapshot

DELETED = "deleted"
_ID = re.compile(r"([a-z]{1,20})(?:-([0-9]{1,15}))?")


class EventName(StrEnum):
    STATUS = "status"
    PROGRESS = "progress"
    END = "end"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A state: the status, and what moves while it lasts. Its id is `queued-3`, `processing-120` or `completed`.

    `number` is the place in the queue or the frames done; None for statuses in which nothing moves.
    """

    status: str
    number: int | None = None

    @property
    def id(self) -> str:
        return self.status if self.number is None else f"{self.status}-{self.number}"

    @classmethod
    def from_id(cls, event_id: str | None) -> "Seen | None":
        """None for what is no id of ours: then everything is new."""
        match = _ID.fullmatch(event_id or "")
        if match is None:
            return None
        return cls(status=match[1], number=None if match[2] is None else int(match[2]))


def state_of(view: RenderView) -> Seen:
    status = view.render.status
    if status is RenderStatus.QUEUED:
        return Seen(status=status.value, number=view.queue_position)
    if status is RenderStatus.PROCESSING:
        return Seen(status=status.value, number=view.frames.done if view.frames else 0)
    return Seen(status=status.value)


class EventLine:
    """What one client is to be told of one render. `last_event_id` is what it has seen already."""

    def __init__(self, last_event_id: str | None) -> None:
        self._seen = Seen.from_id(last_event_id)

    def has_seen_end(self, snapshot: RenderSnapshot) -> bool:
        """Whether the render has ended, and the client knows."""
        return (
            snapshot.view is not None
            and snapshot.view.render.status.is_final
            and state_of(snapshot.view) == self._seen
        )

    def next(self, snapshot: RenderSnapshot) -> tuple[EventName, str] | None:
        """The event that tells what is new, and its id; None when nothing is."""
        if snapshot.view is None:
            return EventName.END, DELETED
        state, before = state_of(snapshot.view), self._seen
        if before is not None and before.status == state.status:
            if before == state or _went_back(before, state, snapshot.view):
                return None
            name = EventName.PROGRESS
        else:
            name = EventName.STATUS
        self._seen = state
        return (EventName.END if snapshot.view.render.status.is_final else name), state.id


def _went_back(before: Seen, state: Seen, view: RenderView) -> bool:
    """A part that is done again takes frames back: nobody is told before there are more than ever before."""
    if view.render.status is not RenderStatus.PROCESSING or view.frames is None:
        return False
    done, told = state.number or 0, before.number or 0
    return done < told <= view.frames.total
