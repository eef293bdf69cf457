"""Parts of frames."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class Area:
    """A part of a frame, in its pixels."""

    x: int
    y: int
    width: int
    height: int

    @property
    def pixels(self) -> int:
        return self.width * self.height

    def within(self, outer: "Area") -> "Area":
        """The same part, as seen from the corner of another that holds it."""
        return replace(self, x=self.x - outer.x, y=self.y - outer.y)

    def enlarged(self, factor: int) -> "Area":
        """The same part of a frame so many times as wide and high."""
        return Area(
            x=self.x * factor, y=self.y * factor, width=self.width * factor, height=self.height * factor
        )

    def centred(self, *, width: int, height: int) -> "Area":
        """As much of that size as fits, around the middle of this one."""
        width, height = min(width, self.width), min(height, self.height)
        return Area(
            x=self.x + (self.width - width) // 2,
            y=self.y + (self.height - height) // 2,
            width=width,
            height=height,
        )
