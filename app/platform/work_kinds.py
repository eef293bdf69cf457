"""The kinds of work that workers claim, and the queues that wake them for it."""

from enum import StrEnum


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
