"""The spacing of sound packets without timestamps of their own.

A packet of a transport or program stream holds several frames of sound, of which only the first has a
timestamp. ffmpeg spaces the others by the stream's first sampling rate, which is wrong once that has changed.
"""

from dataclasses import dataclass, field
from fractions import Fraction

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
