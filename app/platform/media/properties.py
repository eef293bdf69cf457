"""The measured properties of every video: a file, a render's input or its output."""

from dataclasses import dataclass
from fractions import Fraction

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

    def upscaled(self, *, scale: int, target_fps: Fraction | None) -> "VideoProperties":
        """The expected output: `scale` times the width and height, at `target_fps` or with the same frames."""
        return VideoProperties(
            width=self.width * scale,
            height=self.height * scale,
            frame_rate=target_fps or self.frame_rate,
            duration_seconds=self.duration_seconds,
            frames=self.frames if target_fps is None else frames_at_rate(self.duration_seconds, target_fps),
        )
