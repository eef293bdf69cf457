"""How many connections each API process of one server has, in memory that they share."""

import mmap
from pathlib import Path

NUMBER_BYTES = 4


class ConnectionCounts:
    """For the process of that number, from 0. The others' numbers may change at any time."""

    def __init__(self, path: Path, *, number: int) -> None:
        """`path` is of `make_counts`."""
        with path.open("r+b") as file:
            self._numbers = memoryview(mmap.mmap(file.fileno(), 0)).cast("i")
        self._number = number
        self.tell(0)

    def tell(self, count: int) -> None:
        self._numbers[self._number] = count

    @property
    def lead(self) -> int:
        """How many connections this process has more than the one of the others that has the fewest."""
        others = (count for number, count in enumerate(self._numbers) if number != self._number)
        return self._numbers[self._number] - min(others)


def make_counts(path: Path, processes: int) -> None:
    """Make the file for so many processes, 2 or more, which have no connections yet."""
    path.write_bytes(bytes(NUMBER_BYTES * processes))
