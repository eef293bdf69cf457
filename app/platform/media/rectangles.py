"""Rectangles in frames."""

from dataclasses import dataclass, replace


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

    def enlarged(self, factor: int) -> "Area":
        """The same rectangle in a frame that is enlarged by `factor`."""
        return Area(
            x=self.x * factor, y=self.y * factor, width=self.width * factor, height=self.height * factor
        )

    def centred(self, *, width: int, height: int) -> "Area":
        """A rectangle of that size, cut to this one, around its centre."""
        width, height = min(width, self.width), min(height, self.height)
        return Area(
            x=self.x + (self.width - width) // 2,
            y=self.y + (self.height - height) // 2,
            width=width,
            height=height,
        )
