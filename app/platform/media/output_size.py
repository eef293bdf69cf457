"""The output's size, as requests ask for it: a factor, or a box to fit in."""

import re
from dataclasses import dataclass, fields
from fractions import Fraction

from app.platform.errors import InvalidRequest
from app.platform.quoting import received

# What the networks enlarge by; a smaller output is reduced from it.
MOST_SCALE = 4
# Options that cannot be given together: each decides the output's size.
EXCLUSIVE = frozenset({frozenset({"scale", "max_width"}), frozenset({"scale", "max_height"})})
# Of the encoders.
MOST_SIDE = 16_384


@dataclass(frozen=True, kw_only=True)
class OutputSize:
    """`scale` times the input's width and height, or as large as the bounds allow, up to `MOST_SCALE` times."""

    scale: int | None = None
    max_width: int | None = None
    max_height: int | None = None

    def check(self) -> None:
        """Raises ValueError for options that cannot be given together."""
        given = {field.name for field in fields(self) if getattr(self, field.name) is not None}
        for pair in sorted(sorted(pair) for pair in EXCLUSIVE if pair <= given):
            raise ValueError(
                f"`{pair[1]}` and `{pair[0]}` cannot be given together: each decides the output's size."
            )

    def of(self, width: int, height: int) -> tuple[int, int]:
        """The output's width and height for an input of that size: even, because its chroma is subsampled."""
        if self.max_width is None and self.max_height is None:
            scale = self.scale or MOST_SCALE
            return _even(Fraction(width * scale)), _even(Fraction(height * scale))
        bounds = [
            most // 2 * 2 if most is not None else MOST_SCALE * side
            for most, side in ((self.max_width, width), (self.max_height, height))
        ]
        factor = min(Fraction(bound, side) for bound, side in zip(bounds, (width, height), strict=True))
        factor = min(factor, Fraction(MOST_SCALE))
        return (
            min(_even(width * factor), bounds[0]),
            min(_even(height * factor), bounds[1]),
        )

    def factors(self, width: int, height: int) -> tuple[Fraction, Fraction]:
        """By how much the columns and the rows of a frame of that size are multiplied, whole or in part."""
        if self.max_width is None and self.max_height is None:
            factor = Fraction(self.scale or MOST_SCALE)
            return factor, factor
        columns, rows = self.of(width, height)
        return Fraction(columns, width), Fraction(rows, height)


def output_size(scale: int | None, max_width: int | None, max_height: int | None) -> OutputSize | None:
    """None where nothing is asked for."""
    if scale is None and max_width is None and max_height is None:
        return None
    return OutputSize(scale=scale, max_width=max_width, max_height=max_height)


def parse_scale(text: str) -> int:
    """Raises InvalidRequest for anything but a whole number from 1 to 4."""
    whole = re.fullmatch(r"\+?0*([1-9])(?:\.0+)?", text.strip())
    if whole and int(whole[1]) <= MOST_SCALE:
        return int(whole[1])
    raise InvalidRequest(f"`scale` must be 1, 2, 3 or 4{received(text)}")


def parse_side(text: str, *, name: str) -> int:
    """Pixels. Raises InvalidRequest for anything but a whole number from 2 to MOST_SIDE."""
    whole = re.fullmatch(r"\+?0*([0-9]{1,5})(?:\.0+)?", text.strip())
    if whole and 2 <= int(whole[1]) <= MOST_SIDE:
        return int(whole[1])
    raise InvalidRequest(f"`{name}` must be a whole number of pixels from 2 to {MOST_SIDE}{received(text)}")


def _even(side: Fraction) -> int:
    """The nearest even number, the larger of two; at least 2."""
    return max(2, 2 * int(side / 2 + Fraction(1, 2)))
