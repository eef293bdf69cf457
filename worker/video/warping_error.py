"""Flicker: how much a video changes from frame to frame other than by its motion.

The warping error of Lai et al., "Learning blind video temporal consistency" (ECCV 2018): the mean squared difference
of a frame and the frame before, moved along the motion between them, where that motion exists; white squared is 1. It
exists where the motions forwards and backwards agree (Sundaram et al., "Dense point trajectories by GPU-accelerated
large displacement optical flow", 2010). The motion is that of the input, by Farneback's method ("Two-frame motion
estimation based on polynomial expansion", 2003): `stabilise` uses another one, and would else judge itself.
"""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.video.motion import MIN_SIDE, Field, reduced, warp
from worker.video.similarity_metrics import PEAK, Plane

# The motion of larger pictures is found at half (a quarter, ...) of their size.
MOST_MOTION_PIXELS = 1280 * 720
# Two motions agree if the square of their sum is below this share of their squares' sum, and so much in pixels.
AGREEMENT_SHARE, AGREEMENT_SQUARE = 0.01, 0.5


@dataclass(frozen=True, kw_only=True)
class WarpingErrors:
    """Means over all pairs of consecutive frames; white squared is 1."""

    input: float
    output: float

    def as_json(self) -> dict[str, float]:
        """As the API shows them."""
        return {"warpingError": round(self.output, 8), "warpingErrorInput": round(self.input, 8)}

    def formatted(self) -> str:
        return f"{self.output * 1e4:.3f}e-4 (input {self.input * 1e4:.3f}e-4)"


class PastMotion(NamedTuple):
    """For each pixel of a frame, where it was in the frame before (shares of its sides), and whether that is known.

    Both of the size at which the motion was found: `shift` is rows x columns x 2 (right, down), `is_known` is boolean.
    """

    shift: Field
    is_known: NDArray[np.bool_]


class WarpingMeter:
    """Accumulates the errors of a video from planes of 8-bit codes: the input's, and the output's at any size."""

    def __init__(self) -> None:
        self._last: tuple[int, Plane, Plane] | None = None
        self._pairs = 0
        self._input = self._output = 0.0

    def add(self, number: int, reference: Plane, result: Plane) -> None:
        """`number` is the output frame's; pairs have consecutive numbers."""
        if self._last is not None and self._last[0] == number - 1:
            motion = past_motion(self._last[1], reference)
            if motion.is_known.any():
                self._pairs += 1
                self._input += warping_error(self._last[1], reference, motion)
                self._output += warping_error(self._last[2], result, motion)
        self._last = (number, reference, result)

    def errors(self) -> WarpingErrors | None:
        """None if there was no pair with known motion."""
        if not self._pairs:
            return None
        return WarpingErrors(input=self._input / self._pairs, output=self._output / self._pairs)


def past_motion(before: Plane, after: Plane) -> PastMotion:
    """From two planes of 8-bit codes, shape (rows, columns)."""
    step = 1
    while before.size > MOST_MOTION_PIXELS * step**2:
        step *= 2
    first, last = (_enlarged_to_least(reduced(plane, step)) for plane in (before, after))
    back, forth = _farneback(last, first), _farneback(first, last)
    there = np.asarray(warp(forth, back, 1), np.float32)
    sum_squared = np.square(back + there).sum(axis=2)
    squares = np.square(back).sum(axis=2) + np.square(there).sum(axis=2)
    is_known = sum_squared < AGREEMENT_SHARE * squares + AGREEMENT_SQUARE
    rows, columns = first.shape
    back[..., 0] /= columns
    back[..., 1] /= rows
    return PastMotion(back, is_known)


def warping_error(before: Plane, after: Plane, motion: PastMotion) -> float:
    """Of two planes of 8-bit codes of any size; 0 if no motion is known."""
    rows, columns = after.shape
    size = (columns, rows)
    shift = cv2.resize(motion.shift, size, interpolation=cv2.INTER_LINEAR)
    known = cv2.resize(motion.is_known.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    x = np.arange(columns, dtype=np.float32) + shift[..., 0] * columns
    y = np.arange(rows, dtype=np.float32)[:, None] + shift[..., 1] * rows
    moved = cv2.remap(before, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    errors = np.square(after - moved)[known]
    return float(errors.mean(dtype=np.float64)) / PEAK**2 if errors.size else 0.0


def _farneback(here: NDArray[np.uint8], other: NDArray[np.uint8]) -> Field:
    flow = np.zeros((*here.shape, 2), np.float32)
    return np.asarray(cv2.calcOpticalFlowFarneback(here, other, flow, 0.5, 5, 21, 5, 7, 1.5, 0), np.float32)


def _enlarged_to_least(plane: Plane) -> NDArray[np.uint8]:
    """In 8 bits, with sides long enough for the flow."""
    rows, columns = plane.shape
    size = (max(columns, MIN_SIDE), max(rows, MIN_SIDE))
    codes = np.rint(plane).clip(0, 255).astype(np.uint8)
    return codes if size == (columns, rows) else np.asarray(cv2.resize(codes, size), np.uint8)
