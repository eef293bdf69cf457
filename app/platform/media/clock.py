"""The clock of a file whose timestamps start again: joined transport streams, DVDs, recordings with a new time base.

Such a file is a sequence of epochs, in each of which timestamps count on. A demuxer delivers the streams' packets only
roughly in step: the last packets of one epoch may come after the first ones of the next.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import pairwise

from app.platform.errors import LimitExceeded

# In microseconds: the least wrong spacing that is recognized, and the precision to which the right one is found.
LEAST_ERROR = 5_000
TOLERANCE = 1_500
RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 64_000, 88_200, 96_000)
RATIOS = frozenset(Fraction(one, other) for one in RATES for other in RATES if one != other)


@dataclass
class SoundSpacing:
    """Reads the packets of one stream. Times are in microseconds.

    `changes`: for each change of the spacing, the number of its first packet, and the microseconds from one
    packet to the next.
    """

    changes: list[tuple[int, Fraction]] = field(default_factory=list)
    _interpolated: int = 0
    _stated_at: int = 0
    _stated_packet: int = 0
    _end: int = 0

    def is_interpolated(self, at: int, *, lasts: int, is_stated: bool) -> bool:
        """Whether the next packet's timestamp, which the file does not state, follows from the one before."""
        if is_stated or abs(at - self._end) > TOLERANCE:
            return False
        self._end += lasts
        self._interpolated += 1
        return True

    def goes_on(self, packet: int, at: int, *, lasts: int) -> bool:
        """Read the next packet, whose timestamp the file states. Returns whether it follows the previous one,
        whose apparent spacing is wrong."""
        count = 1 + self._interpolated
        seeming, true = self._end - self._stated_at, at - self._stated_at
        anchor = self._stated_packet
        self._interpolated, self._stated_at, self._stated_packet, self._end = 0, at, packet, at + lasts
        if true <= 0 or seeming <= 0:
            return False
        if count == 1:
            # Only its apparent length is wrong.
            return true < seeming
        ratio = Fraction(1)
        if abs(true - seeming) >= LEAST_ERROR:
            ratio = min(RATIOS, key=lambda one: abs(seeming * one - true))
            if abs(seeming * ratio - true) > TOLERANCE:
                return False
        spacing = Fraction(seeming, count) * ratio
        if self.changes[-1][1] != spacing if self.changes else ratio != 1:
            self.changes.append((anchor, spacing))
        return ratio != 1


# Formats whose timestamps may start again: ffmpeg's demuxers with the flag AVFMT_TS_DISCONT, of those accepted.
RESTARTING_FORMATS = ("mpegts", "mpeg")
MICROSECONDS = 1_000_000
# A step back by more, or forward by more, is a new clock; as in ffmpeg (`dts_delta_threshold`).
LONGEST_STEP_BACK = MICROSECONDS // 10
LONGEST_STEP_FORWARD = 10 * MICROSECONDS
MAX_EPOCHS = 1000
LONG_GAP_SECONDS = 60
TOO_MANY_EPOCHS = (
    f"The timestamps of this file start again more than {MAX_EPOCHS:,} times; at most that many are accepted."
)


def may_restart(format_name: str) -> bool:
    """Whether timestamps may start again in this format (ffmpeg's name)."""
    return any(name in RESTARTING_FORMATS for name in format_name.split(","))


@dataclass
class Extent:
    """The frames of one stream in one epoch, in ticks; `last_duration` 0: unknown.

    `untimed_end`: where the last of them ends if some have no pts, as in program streams; 0 if all have one.
    """

    start: int
    last: int
    last_duration: int
    count: int = 1
    untimed_end: int = 0

    def add(self, pts: int, duration: int) -> None:
        self.count += 1
        self.start = min(self.start, pts)
        if pts >= self.last:
            self.last, self.last_duration = pts, duration

    @property
    def end(self) -> int:
        """The end of the last frame, which lasts as long as the others on average if its duration is unknown."""
        if self.last_duration or self.count == 1:
            return max(self.last + self.last_duration, self.untimed_end)
        return self.last + round((self.last - self.start) / (self.count - 1))


@dataclass
class _Epoch:
    """`low`, `high`: the decoding times seen, in microseconds. `extents`: by stream."""

    low: int
    high: int
    extents: dict[int, Extent] = field(default_factory=dict)

    def show(self, stream: int, *, pts: int | None, decoded: int, duration: int) -> None:
        """Extend the stream's extent by a frame. `decoded`: its decoding time in ticks, where it has one."""
        shown = decoded if pts is None else pts
        extent = self.extents.get(stream)
        if extent is None:
            self.extents[stream] = Extent(start=shown, last=shown, last_duration=duration)
        else:
            extent.add(shown, duration)
            if pts is None or extent.untimed_end:
                # MPEG-1 and MPEG-2 show the last frame one later than they decode it.
                extent.untimed_end = decoded + 2 * duration

    def is_near(self, at: int) -> bool:
        return self.low - LONGEST_STEP_FORWARD <= at <= self.high + LONGEST_STEP_FORWARD


@dataclass
class _Position:
    """Where a stream is: its epoch, where its last packet ends in microseconds, and the number of its packets."""

    epoch: int = -1
    end: int = 0
    packets: int = 0
    spacing: SoundSpacing = field(default_factory=SoundSpacing)

    def follows(self, at: int, *, lasts: int, is_stated: bool) -> bool:
        """Whether the packet's timestamp follows from the one before, so that it tells nothing new. `packets` counts it
        already."""
        if self.spacing.is_interpolated(at, lasts=lasts, is_stated=is_stated):
            self.end += lasts
            return True
        if self.spacing.goes_on(self.packets - 1, at, lasts=lasts):
            self.end = at
        return False


class EpochReader:
    """Finds the epoch of each packet of a file, in the order in which the demuxer delivers them.

    `time_bases`: seconds per tick, by stream. `reference`: the stream by which epochs follow each other. Without
    `restarts`, all packets are of one epoch.

    `changes`: for each stream, the number of its first packet in an epoch, and the number of that epoch.
    `span`: how long the epochs last together, whichever their streams, in microseconds. `long_gaps`: for each stream,
    how many gaps of more than LONG_GAP_SECONDS it has in its epochs.
    """

    def __init__(self, time_bases: Mapping[int, Fraction], *, reference: int, restarts: bool) -> None:
        self._time_bases = time_bases
        self._reference = reference
        self._restarts = restarts
        self._epochs: list[_Epoch] = []
        self._positions = {stream: _Position() for stream in time_bases}
        self._ticks = {
            stream: (base.numerator * MICROSECONDS, base.denominator) for stream, base in time_bases.items()
        }
        self.changes: dict[int, list[tuple[int, int]]] = {stream: [] for stream in time_bases}
        self.span = 0
        self.long_gaps = dict.fromkeys(time_bases, 0)

    @property
    def count(self) -> int:
        return len(self._epochs)

    def add(
        self,
        stream: int,
        *,
        pts: int | None,
        dts: int | None,
        duration: int,
        is_steady: bool,
        is_shown: bool,
        is_stated: bool = True,
    ) -> None:
        """Read the stream's next packet. `is_steady`: of sound or video, whose packets follow each other. `is_stated`:
        the file states its timestamp, as far as is known.

        Raises LimitExceeded for too many epochs.
        """
        position = self._positions[stream]
        position.packets += 1
        decoded = pts if dts is None else dts
        if decoded is None:
            return
        numerator, denominator = self._ticks[stream]
        at = decoded * numerator // denominator
        lasts = duration * numerator // denominator
        if position.follows(at, lasts=lasts, is_stated=is_stated):
            return
        number = self._find_epoch(position, at, is_steady=is_steady)
        if number == len(self._epochs):
            if number == MAX_EPOCHS:
                raise LimitExceeded(TOO_MANY_EPOCHS)
            self._epochs.append(_Epoch(low=at, high=at))
        epoch = self._epochs[number]
        # Data in transport streams may have timestamps of another clock.
        if is_steady or not self._restarts or epoch.is_near(at):
            low, high = min(epoch.low, at), max(epoch.high, at)
            self.span += high - low - (epoch.high - epoch.low)
            epoch.low, epoch.high = low, high
        if is_shown:
            epoch.show(stream, pts=pts, decoded=decoded, duration=duration)
        if position.epoch == number and at - position.end > LONG_GAP_SECONDS * MICROSECONDS:
            self.long_gaps[stream] += 1
        if position.epoch != number:
            self.changes[stream].append((position.packets - 1, number))
            position.epoch = number
        position.end = at + lasts

    def shifts(self) -> list[Fraction]:
        """The seconds to add to each epoch's timestamps so that it follows on the one before; 0 for the first."""
        shifts = [Fraction(0)]
        for before, after in pairwise(self._epochs):
            shifts.append(shifts[-1] + self._bounds(before)[1] - self._bounds(after)[0])
        return shifts

    def packet_shifts(self) -> dict[int, tuple[tuple[int, int], ...]]:
        """For each stream, the ticks to add to its timestamps from the packet of that number on, so that they go on and
        the file starts at 0. Empty if the timestamps never start again.
        """
        if len(self._epochs) < 2:
            return {}
        start = Fraction(self._epochs[0].low, MICROSECONDS)
        shifts = [shift - start for shift in self.shifts()]
        return {
            stream: tuple(
                (packet, round(shifts[epoch] / self._time_bases[stream])) for packet, epoch in changes
            )
            for stream, changes in self.changes.items()
        }

    def packet_spacings(self) -> dict[int, tuple[tuple[int, Fraction], ...]]:
        """For each stream of sound whose sampling rate changes, the ticks from one packet to the next, from the packet
        of that number on."""
        return {
            stream: tuple(
                (packet, lasts / MICROSECONDS / self._time_bases[stream])
                for packet, lasts in position.spacing.changes
            )
            for stream, position in self._positions.items()
            if position.spacing.changes
        }

    def extents(self) -> list[Extent]:
        """The extents of the reference stream in the epochs in which it has frames, with continuous timestamps."""
        found = []
        base = self._time_bases[self._reference]
        for epoch, shift in zip(self._epochs, self.shifts(), strict=True):
            if (extent := epoch.extents.get(self._reference)) is not None:
                ticks = round(shift / base)
                found.append(replace(extent, start=extent.start + ticks, last=extent.last + ticks))
        return found

    def _bounds(self, epoch: _Epoch) -> tuple[Fraction, Fraction]:
        """Start and end of an epoch in seconds: of its reference stream, else of all streams."""
        reference = epoch.extents.get(self._reference)
        extents = epoch.extents if reference is None else {self._reference: reference}
        bounds = [
            (extent.start * self._time_bases[stream], extent.end * self._time_bases[stream])
            for stream, extent in extents.items()
        ] or [(Fraction(epoch.low, MICROSECONDS), Fraction(epoch.high, MICROSECONDS))]
        return min(start for start, _ in bounds), max(end for _, end in bounds)

    def _find_epoch(self, position: _Position, at: int, *, is_steady: bool) -> int:
        """The number of the epoch, which is that of the next one if it is new."""
        newest = len(self._epochs) - 1
        if not self._restarts or newest < 0:
            return 0
        earliest = max(0, position.epoch)
        if is_steady and position.epoch >= 0:
            step = at - position.end
            if abs(step) <= LONGEST_STEP_BACK:
                return earliest
            is_behind = newest > earliest and self._epochs[newest].is_near(at)
            # After a gap in one stream, the others have gone on.
            if step > 0 and at <= self._epochs[earliest].high + LONGEST_STEP_FORWARD and not is_behind:
                return earliest
            earliest += 1
        near = (number for number in range(newest, earliest - 1, -1) if self._epochs[number].is_near(at))
        return next(near, newest + 1 if is_steady else newest)
