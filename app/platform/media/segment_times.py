"""When the segments of a render are shown: what a playlist needs to know of its plan."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Self


@dataclass(frozen=True, kw_only=True)
class SegmentTimes:
    """`ends`: when each segment ends, in ticks from the first frame of the output, of which a second has `timescale`.
    The first begins at 0, each other where the one before ends. `delay`: for how many ticks an encoder may hold a frame
    back that is shown before others.
    """

    timescale: int
    delay: int
    ends: Sequence[int]

    def bounds(self, position: int) -> tuple[int, int]:
        """When that segment, counted from 0, begins and ends, in ticks."""
        return self.ends[position - 1] if position else 0, self.ends[position]

    @property
    def durations(self) -> list[Fraction]:
        """Of each segment, in seconds."""
        return [
            Fraction(end - start, self.timescale) for start, end in map(self.bounds, range(len(self.ends)))
        ]

    def as_json(self) -> dict[str, Any]:
        return {"timescale": self.timescale, "delay": self.delay, "ends": list(self.ends)}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        return cls(**stored)
