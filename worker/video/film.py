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

# In hard telecine, one in so many frames repeats another. One that is dropped at another place of this cycle than the
# last costs more: of pictures that the film itself repeats, as animation does, those of the rhythm are dropped.
CYCLE, IRREGULAR_COST = 5, 6.0

DROPPED = -1
# The next free slot, and the place in the cycle of the last frame that was dropped.
_State: TypeAlias = tuple[int, int]
# For each state after a frame: the one before it, and the frame's own slot, or DROPPED.
_Steps: TypeAlias = dict[_State, tuple[_State, int]]


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

    A shortest path: of all that can be done with the frames so far, only the state matters to those that follow, and
    few slots are near a frame's time.
    """
    chosen = array("q", [0]) * len(times)
    settled = 1
    # Any place may be that of the first.
    costs = {(1, place): 0.0 for place in range(CYCLE)}
    paths: list[_Steps] = []
    for number in range(1, len(times)):
        first = max(0, -((MOST_SLOTS * slot - times[number]) // slot))
        last = (times[number] + MOST_SLOTS * slot) // slot
        drop = DROP_COST + differences[number]
        here = number % CYCLE
        after: dict[_State, float] = {}
        steps: _Steps = {}
        for before, cost in costs.items():
            free, place = before
            # No later frame is shown in the slots up to `least`: the one before fills them.
            least = max(free, first)
            dropped = cost + drop + REPEAT_COST * (least - free) + (IRREGULAR_COST if place != here else 0)
            ways = [((least, here), DROPPED, dropped)]
            ways += [((at + 1, place), at, cost + REPEAT_COST * (at - free)) for at in range(least, last + 1)]
            for state, at, total in ways:
                if state not in after or total < after[state]:
                    after[state], steps[state] = total, (before, at)
        costs = _undominated(after)
        paths.append(steps)
        if number % SETTLING_FRAMES == 0 and len(paths) > SETTLING_FRAMES and number + 1 < len(times):
            costs = _settle(costs, paths, chosen, first=settled, end=ends[number])
            settled = number + 1 - len(paths)
    _follow(_cheapest(costs, ends[-1]), paths, chosen, first=settled)
    return chosen, settled


def _undominated(costs: Mapping[_State, float]) -> dict[_State, float]:
    """Without states from which nothing is cheaper than from another with the same slot, at another place."""
    least: dict[int, float] = {}
    for (free, _), cost in costs.items():
        least[free] = min(cost, least.get(free, cost))
    return {state: cost for state, cost in costs.items() if cost < least[state[0]] + IRREGULAR_COST}


def _cheapest(costs: Mapping[_State, float], end: int) -> _State:
    """The state of least cost, if the video ended before slot `end`."""

    def total(state: _State) -> float:
        free, _ = state
        return costs[state] + REPEAT_COST * max(0, end - free) + OVERRUN_COST * max(0, free - end)

    return min(sorted(costs), key=total)


def _settle(
    costs: dict[_State, float], paths: list[_Steps], chosen: MutableSequence[int], *, first: int, end: int
) -> dict[_State, float]:
    """Decide on all frames but the last SETTLING_FRAMES as if the video ended now, before slot `end`. Returns the costs
    of what remains possible.
    """
    best = _cheapest(costs, end)
    _follow(best, paths, chosen, first=first)
    recent = paths[-SETTLING_FRAMES:]
    origins = {state: _follow(state, recent) for state in costs}
    del paths[:-SETTLING_FRAMES]
    return {state: cost for state, cost in costs.items() if origins[state] == origins[best]}


def _follow(
    state: _State, paths: Sequence[_Steps], chosen: MutableSequence[int] | None = None, *, first: int = 0
) -> _State:
    """The state before these paths to `state`; their choices are put into `chosen`, from `first` on."""
    for number in range(len(paths) - 1, -1, -1):
        state, at = paths[number][state]
        if chosen is not None:
            chosen[first + number] = at
    return state
