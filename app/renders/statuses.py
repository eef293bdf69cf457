"""Statuses of renders and segments, and their allowed changes; those of a result on its way."""

from enum import StrEnum


class RenderStatus(StrEnum):
    """A render's status as the API shows it. It only moves forward.

    `queued` waits, `pending` is being prepared, `processing` has segments, `completed` and `failed` are final.
    """

    QUEUED = "queued"
    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        return self in (RenderStatus.COMPLETED, RenderStatus.FAILED)

    def may_become(self, other: "RenderStatus") -> bool:
        return other in RENDER_MOVES[self]

    @property
    def predecessors(self) -> tuple["RenderStatus", ...]:
        """The statuses from which this one may be reached."""
        return tuple(status for status in RenderStatus if status.may_become(self))


ENDED = tuple(status for status in RenderStatus if status.is_final)
UNFINISHED = tuple(status for status in RenderStatus if not status.is_final)


class SegmentStatus(StrEnum):
    """A segment's status. `running` goes back to `waiting` when its lease expires or its attempt fails."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"

    def may_become(self, other: "SegmentStatus") -> bool:
        return other in SEGMENT_MOVES[self]


class DestinationStatus(StrEnum):
    """Where a result is on its way to its user's destination. `failed` may become `pending` when it is sent again."""

    PENDING = "pending"
    DELIVERING = "delivering"
    DELIVERED = "delivered"
    FAILED = "failed"


RENDER_MOVES: dict[RenderStatus, frozenset[RenderStatus]] = {
    RenderStatus.QUEUED: frozenset({RenderStatus.PENDING, RenderStatus.FAILED}),
    RenderStatus.PENDING: frozenset({RenderStatus.PROCESSING, RenderStatus.FAILED}),
    RenderStatus.PROCESSING: frozenset({RenderStatus.COMPLETED, RenderStatus.FAILED}),
    RenderStatus.COMPLETED: frozenset(),
    RenderStatus.FAILED: frozenset(),
}

SEGMENT_MOVES: dict[SegmentStatus, frozenset[SegmentStatus]] = {
    SegmentStatus.WAITING: frozenset({SegmentStatus.RUNNING, SegmentStatus.FAILED}),
    SegmentStatus.RUNNING: frozenset({SegmentStatus.WAITING, SegmentStatus.DONE, SegmentStatus.FAILED}),
    SegmentStatus.DONE: frozenset(),
    SegmentStatus.FAILED: frozenset(),
}
