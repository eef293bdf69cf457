"""Rectangles in frames."""

from dataclasses import dataclass, replace
from fractions import Fraction


@dataclass(frozen=True, kw_only=True)
class Area:
    """A rectangle in a frame, in pixels."""

    x: int
    y: int
    width: int
    height: int

    @property
    def pixels(self) -> int:
        return self.width * self.height

    def within(self, outer: "Area") -> "Area":
        """The same rectangle relative to the corner of `outer`, which contains it."""
        return replace(self, x=self.x - outer.x, y=self.y - outer.y)

    def enlarged(self, columns: Fraction, rows: Fraction) -> "Area":
        """The same rectangle, to the nearest pixel, in a frame with so many times the columns and rows."""
        left, right = (round(x * columns) for x in (self.x, self.x + self.width))
        top, bottom = (round(y * rows) for y in (self.y, self.y + self.height))
        return Area(x=left, y=top, width=max(1, right - left), height=max(1, bottom - top))

    def centred(self, *, width: int, height: int) -> "Area":
        """A rectangle of that size, cut to this one, around its centre."""
        width, height = min(width, self.width), min(height, self.height)
        return Area(
            x=self.x + (self.width - width) // 2,
            y=self.y + (self.height - height) // 2,
            width=width,
            height=height,
        )
