"""The kinds of units of work, and the queues that wake workers for them."""

from enum import StrEnum


class WorkKind(StrEnum):
    """The three kinds of units of work, the most urgent first."""

    FINISH = "finish"
    UPSCALE = "upscale"
    PREPARE = "prepare"

    @property
    def queue(self) -> "WorkQueue":
        return WorkQueue.GPU if self is WorkKind.UPSCALE else WorkQueue.CPU


class WorkQueue(StrEnum):
    """The workers for a unit of work: those that upscale on a device, or those that read and write videos."""

    CPU = "cpu"
    GPU = "gpu"

    @property
    def kinds(self) -> tuple[WorkKind, ...]:
        """The kinds of units in this queue, the most urgent first."""
        return tuple(kind for kind in WorkKind if kind.queue is self)
