"""The events of a render's stream: the next one, and its id.

The id encodes the whole state in events. So nothing is stored: any process to which a client reconnects knows
from `Last-Event-ID` what the client has received.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from app.renders.progress import RenderView
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
    """A status, and the number that changes during it. Its id is `queued-3`, `processing-120` or `completed`.

    `number` is the queue position or the frames done; None for the other statuses.
    """

    status: str
    number: int | None = None

    @property
    def id(self) -> str:
        return self.status if self.number is None else f"{self.status}-{self.number}"

    @classmethod
    def from_id(cls, event_id: str | None) -> "Seen | None":
        """None for an unknown id: then everything is new."""
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
    """The sequence of events of one render for one client, which has received those up to `last_event_id`."""

    def __init__(self, last_event_id: str | None) -> None:
        self._seen = Seen.from_id(last_event_id)

    def has_seen_end(self, snapshot: RenderSnapshot) -> bool:
        """Whether the render has ended and the client has received the `end` event."""
        return (
            snapshot.view is not None
            and snapshot.view.render.status.is_final
            and state_of(snapshot.view) == self._seen
        )

    def next(self, snapshot: RenderSnapshot) -> tuple[EventName, str] | None:
        """The next event and its id; None when nothing has changed."""
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
    """Whether a repeated segment reduced the frames: no event is sent until there are more than ever before."""
    if view.render.status is not RenderStatus.PROCESSING or view.frames is None:
        return False
    done, told = state.number or 0, before.number or 0
    return done < told <= view.frames.total
