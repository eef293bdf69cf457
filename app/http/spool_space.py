"""Room on the disk of the spool directory, reserved before an upload's bytes flow."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.platform.errors import Unavailable
from app.platform.units import MIB

RETRY_SECONDS = 60
# What a body of unknown length reserves at a time.
STEP_BYTES = 64 * MIB


class Reservation:
    """One upload's room. `wrote` is told of every block before it is written."""

    def __init__(self, space: "SpoolSpace") -> None:
        self._space = space
        self.left_bytes = 0

    def wrote(self, size_bytes: int) -> None:
        """Raises Unavailable when more than was reserved is written, and there is no room for that."""
        if size_bytes > self.left_bytes:
            self._space.grow(self, max(size_bytes, STEP_BYTES))
        self.left_bytes -= size_bytes


class SpoolSpace:
    """The free room of one directory's disk, of which `keep_free_bytes` are never given away. For any thread."""

    def __init__(self, directory: Path, *, keep_free_bytes: int) -> None:
        self._directory = directory
        self._keep_free_bytes = keep_free_bytes
        self._reservations: set[Reservation] = set()
        self._lock = threading.Lock()

    @contextmanager
    def reserved(self, size_bytes: int | None) -> Iterator[Reservation]:
        """Room for so many bytes, or, where None, for as many as there turn out to be. Raises Unavailable."""
        reservation = Reservation(self)
        self.grow(reservation, STEP_BYTES if size_bytes is None else size_bytes)
        try:
            yield reservation
        finally:
            with self._lock:
                self._reservations.discard(reservation)

    def grow(self, reservation: Reservation, more_bytes: int) -> None:
        """Raises Unavailable."""
        with self._lock:
            taken_bytes = self._keep_free_bytes + sum(one.left_bytes for one in self._reservations)
            free_bytes = shutil.disk_usage(self._directory).free
            if taken_bytes + more_bytes > free_bytes:
                raise no_room(f"{more_bytes} bytes more, with {taken_bytes} of {free_bytes} free ones taken")
            self._reservations.add(reservation)
            reservation.left_bytes += more_bytes


def no_room(detail: str) -> Unavailable:
    return Unavailable(
        "There is no room for uploads just now. Try again later.",
        retry_after_seconds=RETRY_SECONDS,
        detail=detail,
    )
