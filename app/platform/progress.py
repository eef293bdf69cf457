"""Progress: long work reports it, so that hanging work is recognized."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Progress:
    """The beats of one line of work. Takes no lock: any change of `beats` is progress, and any thread may beat.

    `allowed_seconds` is for how much longer than usual the present step may take without a beat.
    """

    def __init__(self) -> None:
        self.beats = 0
        self.allowed_seconds = 0.0

    def beat(self) -> None:
        self.beats += 1

    @contextmanager
    def allowing(self, seconds: float) -> Iterator[None]:
        """Within the block the work may go so many seconds longer without a beat. For the thread whose work it is."""
        before = self.allowed_seconds
        self.allowed_seconds = before + seconds
        try:
            yield
        finally:
            self.beat()
            self.allowed_seconds = before


class Stillness:
    """For how long a progress has stalled, by the reader's own ticks and not by the clock: a process that was
    stopped, or a machine that slept, makes no progress either and is not at fault.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._seen = progress.beats
        self._seconds = 0.0

    @property
    def seconds(self) -> float:
        """Without the time that the present step is allowed."""
        return max(0.0, self._seconds - self._progress.allowed_seconds)

    def tick(self, seconds: float) -> float:
        """Counts so much time, and returns `seconds`."""
        beats = self._progress.beats
        self._seconds = self._seconds + seconds if beats == self._seen else 0.0
        self._seen = beats
        return self.seconds


_current: ContextVar[Progress] = ContextVar("progress", default=Progress())  # noqa: B039 - nothing reads the default


def current_progress() -> Progress:
    """The progress of the work that this thread belongs to; without one, a progress that nothing watches.

    A thread started with a copy of the context belongs to the work of the thread that started it.
    """
    return _current.get()


@contextmanager
def reporting_to(progress: Progress) -> Iterator[Progress]:
    """Within the block this thread's work beats `progress`."""
    token = _current.set(progress)
    try:
        yield progress
    finally:
        _current.reset(token)
