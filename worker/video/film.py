"""Inverse telecine: which frames of a telecined film are kept, and when each is shown, at the film's constant rate.

A film of 24 frames a second is shown for two and three fields in turn in a video of 60 fields. In the stream, these
fields are frames, of which the fields of a film's frame have been put together where need be (`deinterlace.py`) and one
in five repeats the one before (hard telecine); or each frame of the film is stored once, with flags that repeat a field
and times that are unevenly spaced (soft telecine); or one follows the other.

One rule covers them all. Output frame k is shown at k frames of the film's rate after the first; each frame of the
stream is given one of these slots or dropped, in order, no further than MOST_SLOTS from its own time. Of all ways to do
so the one is chosen that loses least: dropping a frame costs by how much it differs from the frame before, showing one
twice costs REPEAT_COST. That loses nothing but the repeats where the film's rhythm is regular, at whatever frame it
begins; where the rhythm breaks, at cuts, a frame may be lost or shown twice, where that changes least.
"""

from array import array
from collections.abc import Mapping, MutableSequence, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TypeAlias

from worker.video.timeline import OutputTimeline, SourceTimeline

# How far a frame may be shown from its own time, in frames of the film. The rhythm alone moves frames by 0.6.
MOST_SLOTS = 1
# Codes of 8 bits, as the differences between frames. The first is what even a frame that equals the one before costs:
# nothing is dropped but to keep time.
DROP_COST, REPEAT_COST = 1.0, 8.0
# Of a slot after the video's end: a last frame that only repeats is not worth it, any other is.
OVERRUN_COST = 4.0
# A video that ends less than a slot divided by this before the end of a slot has this slot too.
END_SLACK = 4
# Every so many frames, the choice becomes final for those that are at least as many frames back.
SETTLING_FRAMES = 256

DROPPED = -1
# For each next free slot: which was free before this frame, and the frame's own slot, or DROPPED.
_Steps: TypeAlias = dict[int, tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class Film:
    """The film's frames: `numbers` are those among the stream's frames, `timeline` their times, at a constant rate.

    A frame that is shown in several slots lasts as long. `settled_frames`: for so many of the stream's frames, what
    follows them changes nothing.
    """

    numbers: Sequence[int]
    timeline: SourceTimeline
    settled_frames: int

    def among_all(self, output: OutputTimeline, count: int) -> OutputTimeline:
        """`output`, which was planned of the film's frames, as one of all `count` frames of the stream."""
        repeats = [0] * count
        between: list[tuple[int, ...]] = [()] * count
        for number, times in zip(self.numbers, output.repeats, strict=True):
            repeats[number] = times
        if output.between:
            # What is interpolated is between two neighbours in the stream: the last of a frame's repeats and the next.
            lasts = (number - 1 for number in (*self.numbers[1:], count))
            for last, phases in zip(lasts, output.between, strict=True):
                between[last] = phases
        return replace(output, repeats=repeats, between=between if output.between else ())


def film_of(source: SourceTimeline, differences: Sequence[float], *, rate: Fraction) -> Film:
    """The film in a stream of frames, with `rate` frames a second.

    `differences`: by how much each frame of the stream differs from the one before, in codes of 8 bits where it does so
    most; the first one's means nothing.
    """
    # In units that hold both the ticks and the slots.
    slot = source.time_base.denominator * rate.denominator
    tick = source.time_base.numerator * rate.numerator
    *times, end = ((pts - source.pts[0]) * tick for pts in (*source.pts, source.end_pts))
    ends = [(time + slot // END_SLACK) // slot for time in (*times[1:], end)]
    slots, settled = _choose(times, differences, slot=slot, ends=ends)
    numbers = [number for number, at in enumerate(slots) if at != DROPPED]
    last = max(slots[numbers[-1]] + 1, ends[-1])
    timeline = SourceTimeline(
        time_base=Fraction(1, rate.numerator),
        pts=[slots[number] * rate.denominator for number in numbers],
        end_pts=last * rate.denominator,
    )
    return Film(numbers=numbers, timeline=timeline, settled_frames=settled)


def _choose(
    times: Sequence[int], differences: Sequence[float], *, slot: int, ends: Sequence[int]
) -> tuple[Sequence[int], int]:
    """The slot of each frame, or DROPPED, at least cost; and for how many frames that is final. `ends`: before which
    slot each frame ends.

    A shortest path: of all that can be done with the frames so far, only the next free slot matters to those that
    follow, and few slots are near a frame's time.
    """
    chosen = array("q", [0]) * len(times)
    settled = 1
    costs = {1: 0.0}
    paths: list[_Steps] = []
    for number in range(1, len(times)):
        first = max(0, -((MOST_SLOTS * slot - times[number]) // slot))
        last = (times[number] + MOST_SLOTS * slot) // slot
        drop = DROP_COST + differences[number]
        after: dict[int, float] = {}
        steps: _Steps = {}
        for before, cost in costs.items():
            # No later frame is shown in the slots up to `least`: the one before fills them.
            least = max(before, first)
            ways = [(least, DROPPED, cost + drop + REPEAT_COST * (least - before))]
            ways += [(at + 1, at, cost + REPEAT_COST * (at - before)) for at in range(least, last + 1)]
            for free, at, total in ways:
                if free not in after or total < after[free]:
                    after[free], steps[free] = total, (before, at)
        costs = after
        paths.append(steps)
        if number % SETTLING_FRAMES == 0 and len(paths) > SETTLING_FRAMES and number + 1 < len(times):
            costs = _settle(costs, paths, chosen, first=settled, end=ends[number])
            settled = number + 1 - len(paths)
    _follow(_cheapest(costs, ends[-1]), paths, chosen, first=settled)
    return chosen, settled


def _cheapest(costs: Mapping[int, float], end: int) -> int:
    """The next free slot of least cost, if the video ended before slot `end`."""

    def total(free: int) -> float:
        return costs[free] + REPEAT_COST * max(0, end - free) + OVERRUN_COST * max(0, free - end)

    return min(sorted(costs), key=total)


def _settle(
    costs: dict[int, float], paths: list[_Steps], chosen: MutableSequence[int], *, first: int, end: int
) -> dict[int, float]:
    """Decide on all frames but the last SETTLING_FRAMES as if the video ended now, before slot `end`. Returns the costs
    of what remains possible.
    """
    best = _cheapest(costs, end)
    _follow(best, paths, chosen, first=first)
    recent = paths[-SETTLING_FRAMES:]
    origins = {free: _follow(free, recent) for free in costs}
    del paths[:-SETTLING_FRAMES]
    return {free: cost for free, cost in costs.items() if origins[free] == origins[best]}


def _follow(
    free: int, paths: Sequence[_Steps], chosen: MutableSequence[int] | None = None, *, first: int = 0
) -> int:
    """The slot that was free before these paths to `free`; their choices are put into `chosen`, from `first` on."""
    for number in range(len(paths) - 1, -1, -1):
        free, at = paths[number][free]
        if chosen is not None:
            chosen[first + number] = at
    return free
