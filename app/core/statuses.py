"""Statuses of renders, segments and webhook deliveries, the moves that are allowed, and what webhooks tell of them."""

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


class SegmentStatus(StrEnum):
    """A segment's status. `running` goes back to `waiting` when its lease runs out or its attempt fails."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"

    def may_become(self, other: "SegmentStatus") -> bool:
        return other in SEGMENT_MOVES[self]


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


class WorkKind(StrEnum):
    """The three units of work that a worker claims, the most urgent first."""

    FINISH = "finish"
    UPSCALE = "upscale"
    PREPARE = "prepare"

    @property
    def queue(self) -> "WorkQueue":
        return WorkQueue.GPU if self is WorkKind.UPSCALE else WorkQueue.CPU


class WorkQueue(StrEnum):
    """Which workers a unit of work is for: those with a device that computes, or any."""

    CPU = "cpu"
    GPU = "gpu"

    @property
    def kinds(self) -> tuple[WorkKind, ...]:
        """The units of this queue, the most urgent first."""
        return tuple(kind for kind in WorkKind if kind.queue is self)


class WebhookEvent(StrEnum):
    """What a webhook may be told."""

    QUEUED = "render.queued"
    PROCESSING = "render.processing"
    COMPLETED = "render.completed"
    FAILED = "render.failed"
    TEST = "webhook.test"


# Those that an endpoint can subscribe to.
RENDER_EVENTS = tuple(event for event in WebhookEvent if event is not WebhookEvent.TEST)


class DeliveryStatus(StrEnum):
    """`pending`: there will be another attempt. The others are ends, until a replay is asked for."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
