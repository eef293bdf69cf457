"""The measured properties of every video: a file, a render's input or its output."""

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Self

from app.platform.media.output_size import OutputSize
from app.platform.media.rates import frames_at_rate


# Not keyword-only: a composite column builds it from its columns, in this order.
@dataclass(frozen=True)
class VideoProperties:
    """A video's size, rate and length.

    `width`, `height`: pixels as displayed, after rotation.
    `frame_rate`: average, frames a second, above 0.
    `duration_seconds`: from the first frame shown to the end of the last; other streams play no part.
    `frames`: frames that are shown.
    """

    width: int
    height: int
    frame_rate: Fraction
    duration_seconds: Fraction
    frames: int

    @property
    def total_pixels(self) -> int:
        """Pixels of all frames together."""
        return self.width * self.height * self.frames

    def as_fields(self) -> Self:
        """The video of which each field is a frame."""
        return replace(self, frame_rate=2 * self.frame_rate, frames=2 * self.frames)

    def upscaled(
        self, *, scale: int, target_fps: Fraction | None, size: OutputSize | None = None
    ) -> "VideoProperties":
        """The expected output: `scale` times the width and height or, if given, of another `size`; at `target_fps` or
        with the same frames."""
        width, height = self.width * scale, self.height * scale
        if size is not None:
            width, height = size.of(self.width, self.height)
        return VideoProperties(
            width=width,
            height=height,
            frame_rate=target_fps or self.frame_rate,
            duration_seconds=self.duration_seconds,
            frames=self.frames if target_fps is None else frames_at_rate(self.duration_seconds, target_fps),
        )
